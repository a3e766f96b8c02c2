"""Networks that give pixels to queries: undecided pixels in views, windows, predictions, and matrices, on painted images."""

import numpy as np
import pytest
import torch

from contseg.data.classes import UNDECIDED, ClassTable
from contseg.errors import ContsegError
from contseg.evaluation.confusion import confusion_matrix
from contseg.evaluation.inference import WHOLE, Inference, InferenceOptions
from contseg.evaluation.predict import evaluate, predict_batch, predict_image, predict_with_doubt, predict_with_scores
from contseg.evaluation.tiles import Photo, predict_tiles
from contseg.evaluation.values import View
from contseg.interop.exported import Export
from contseg.models.make import make_segmenter
from contseg.models.mask_decision import decided, owner_classes, owner_rule, owner_scores
from contseg.models.options import NetworkOptions
from contseg.models.output import MaskPrediction, SegmenterOutput
from contseg.scenarios.batch import Batch

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)
CLASSES = torch.tensor([[0.0, 4.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 9.0]])
"""Query 0 is of class 1, query 1 of class 2, and query 2 of no-object."""
VIEWS = [
    {},
    {"average": "scores"},
    {"flip": True},
    {"scales": [1.0, 2.0]},
    {"mode": "slide", "crop": 16, "stride": 8},
    {"mode": "slide", "crop": 16, "stride": 8, "flip": True, "average": "scores"},
    {"mode": "along", "crop": 16},
]


def painted_segmenter(decision: str = "owner", background: str = "learned"):
    """A network that looks at colours: its three masks are what is red, green and blue, and classes are `CLASSES`."""
    backbone = {"name": "dinov2_reg_tiny", "patch": 8, "size": 16, "options": {"embed_dim": 16, "num_heads": 2}}
    head = {"name": "eomt", "queries": 3, "blocks": 1, "decision": decision}
    segmenter = make_segmenter(NetworkOptions(backbone=backbone, head=head, background=background), [3]).eval()

    def forward(images_BCHW, taps=()):
        colours = images_BCHW * segmenter.std + segmenter.mean
        logits = CLASSES.expand(len(colours), -1, -1)
        return SegmenterOutput(masks=MaskPrediction(logits, 40 * colours - 20, background=background == "constant"))

    segmenter.forward = forward
    return segmenter


def painted(*rows) -> np.ndarray:
    """An image of squares of 16 pixels."""
    return np.array(rows, dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)


IMAGE = painted([RED, GREEN, BLACK], [BLUE, RED, RED])
EXPECTED = torch.tensor([[1, 2, -1], [-1, 1, 1]]).repeat_interleave(16, 0).repeat_interleave(16, 1)


def batch_of(image, labels) -> Batch:
    images = torch.from_numpy(image).permute(2, 0, 1)[None]
    return Batch(images, labels[None], ("a",), torch.ones(1, 3, dtype=torch.bool))


def inside(size: int = 16) -> torch.Tensor:
    """Pixels that are not beside another square, whose colours resizing mixes."""
    place = torch.arange(size)
    own = (place >= 2) & (place < size - 2)
    return torch.outer(own.repeat(2), own.repeat(3))


@pytest.mark.parametrize("changes", VIEWS, ids=str)
def test_windows_and_views_leave_the_same_pixels_undecided(changes):
    segmenter, inference = painted_segmenter(), Inference(InferenceOptions(**changes))
    images = torch.from_numpy(IMAGE).permute(2, 0, 1)[None]
    found = predict_batch(segmenter, images, inference=inference)[0]
    assert torch.equal(found[inside()], EXPECTED[inside()])
    one = predict_image(segmenter, IMAGE, inference)
    assert one.dtype == np.int16
    assert torch.equal(torch.from_numpy(one).long(), found)
    classes, scores = predict_with_scores(segmenter, IMAGE, inference)
    assert torch.equal(classes, found)
    assert torch.equal(scores == 0, found == UNDECIDED)
    classes, entropy, margin = predict_with_doubt(segmenter, IMAGE, inference)
    assert torch.equal(classes, found)
    assert (entropy[found == UNDECIDED] == 1).all()
    assert (margin[found == UNDECIDED] == 0).all()


def test_a_raster_in_blended_windows_is_decided_alike():
    segmenter = painted_segmenter()
    options = InferenceOptions(mode="slide", crop=16, stride=8)
    outputs = np.zeros(IMAGE.shape[:2], np.int16)
    for place, part in predict_tiles(segmenter, Photo(IMAGE), Inference(options)):
        assert part.dtype == np.int16
        outputs[place] = part
    assert torch.equal(torch.from_numpy(outputs).long(), EXPECTED)


def test_where_background_has_no_masks_it_takes_the_undecided_pixels():
    segmenter = painted_segmenter(background="constant")
    for changes in VIEWS:
        found = predict_image(segmenter, IMAGE, Inference(InferenceOptions(**changes)))
        assert found.dtype == np.uint8
        assert torch.equal(torch.from_numpy(found).long()[inside()], EXPECTED.clamp_min(0)[inside()])
    matrix = evaluate(segmenter, [batch_of(IMAGE, EXPECTED.clamp_min(0))], 3)
    assert matrix.tolist() == [[512, 0, 0], [0, 768, 0], [0, 0, 256]]


def test_a_sum_over_queries_decides_every_pixel():
    segmenter = painted_segmenter("einsum")
    assert predict_image(segmenter, IMAGE).dtype == np.uint8
    assert evaluate(segmenter, [batch_of(IMAGE, EXPECTED.clamp_min(0))], 3).shape == (3, 3)


def test_undecided_pixels_are_misses_or_are_not_counted():
    segmenter = painted_segmenter()
    labels = torch.tensor([[1, 2, 0], [2, 255, 2]]).repeat_interleave(16, 0).repeat_interleave(16, 1)
    missed = evaluate(segmenter, [batch_of(IMAGE, labels)], 3)
    assert missed.tolist() == [[0, 0, 0, 256], [0, 256, 0, 0], [0, 256, 256, 256]]
    ignoring = Inference(InferenceOptions(undecided="ignored"))
    ignored = evaluate(segmenter, [batch_of(IMAGE, labels)], 3, inference=ignoring)
    assert ignored.tolist() == [[0, 0, 0, 0], [0, 256, 0, 0], [0, 256, 256, 0]]
    decided = confusion_matrix(labels, EXPECTED, 3, undecided=True)
    assert torch.equal(missed, decided)


def test_a_pixel_is_undecided_only_where_no_view_decides_it():
    scores = torch.tensor([[[[0.9, 0.0, 0.0]], [[0.0, 0.6, 0.0]]], [[[0.0, 0.0, 0.0]], [[0.8, 0.0, 0.0]]]])
    assert decided(scores.mean(dim=0, keepdim=True)).tolist() == [[[0, 1, UNDECIDED]]]


@pytest.mark.parametrize("decision", ["owner", "owner-simcis"])
@pytest.mark.parametrize("background", [False, True])
def test_the_best_of_the_scores_of_owners_are_their_classes(decision, background):
    logits = torch.nn.functional.one_hot(torch.arange(7) % 4, 5) * 9.0 + torch.rand(2, 7, 5)
    masks = torch.eye(7)[:, :, None].expand(7, 7, 5) * 18 - 9  # each query has a row
    masks = masks.masked_fill((torch.arange(7)[:, None] == 6) & (torch.arange(5) > 1), -9)  # the last one has a part of it
    found = MaskPrediction(logits, masks.expand(2, -1, -1, -1), background=background)
    rule = owner_rule(painted_segmenter(decision).options)
    classes = owner_classes(found, (7, 5), rule)
    assert ((classes == UNDECIDED).any(), (classes > 0).any()) == (not background, True)
    scores = owner_scores(found, (7, 5), rule)
    assert scores.shape == (2, 4, 7, 5)
    assert torch.equal(decided(scores), classes)


class TestSimCIS:
    """Queries of width 10, whose masks and pixels are counted by hand."""

    def answer(self, logits, *masks):
        """The classes of ten pixels; masks are signs."""
        maps = torch.tensor(masks).view(1, len(masks), 1, 10) * 9.0
        rule = owner_rule(painted_segmenter("owner-simcis").options)
        return owner_classes(MaskPrediction(torch.tensor([logits]), maps), (1, 10), rule)[0, 0].tolist()

    def test_a_query_needs_a_probability_over_four_tenths(self):
        low, high = torch.tensor([0.39, 0.61]).log().tolist(), torch.tensor([0.41, 0.59]).log().tolist()
        assert self.answer([low], [1.0] * 10) == [-1] * 10
        assert self.answer([high], [1.0] * 10) == [0] * 10, "although no-object is more probable"

    def test_its_pixels_must_be_its_mask_in_both_directions(self):
        # it owns all ten pixels, as there is no other, and 8 or 7 of them are in its mask
        assert self.answer([[9.0, 0.0, 0.0]], [1.0] * 8 + [-1.0] * 2) == [0] * 8 + [-1] * 2
        assert self.answer([[9.0, 0.0, 0.0]], [1.0] * 7 + [-1.0] * 3) == [-1] * 10

    def test_scores_are_sharp(self):
        # 0.6 of class 0 and 0.55 of class 1: the first owns what both claim, and the other keeps too little of its mask
        chances = torch.tensor([[0.6, 0.2, 0.2], [0.2, 0.55, 0.25]]).log().tolist()
        assert self.answer(chances, [1.0] * 10, [1.0] * 3 + [-1.0] * 7) == [0] * 10


def test_a_view_of_owners_has_scores_whatever_is_averaged():
    for average in ("logits", "scores"):
        view = View.of(painted_segmenter(), InferenceOptions(average=average))
        assert not view.logits
        values = view.network(painted_segmenter().normalise(torch.from_numpy(IMAGE).permute(2, 0, 1)[None]))
        assert torch.equal(view.scores(values), values)
        assert torch.equal(view.decide(values)[0], EXPECTED)
    assert View.of(painted_segmenter("einsum"), WHOLE.options).logits


def test_an_export_has_scores_and_no_ids():
    segmenter, table = painted_segmenter(), ClassTable.of(["background", "red", "green"])
    with pytest.raises(ContsegError, match=r"^argmax: .* \(network\.head\.decision\), which is not exported; export scores"):
        Export(segmenter, table, argmax=True)
    assert not Export(segmenter, table).argmax
    assert Export(painted_segmenter("einsum"), table, argmax=True).argmax
