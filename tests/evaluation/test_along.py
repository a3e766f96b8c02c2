"""Windows along an image cover it, and masks are decided at full size."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contseg.evaluation.along import resized, size_along, windows
from contseg.evaluation.features import evidence
from contseg.evaluation.inference import Inference
from contseg.evaluation.options import InferenceOptions
from contseg.evaluation.predict import predict_batch, predict_image, predict_values, predict_with_scores
from contseg.evaluation.tiles import Photo, predict_tiles
from contseg.evaluation.values import semantic_map
from contseg.interop.exported import FromRGB
from contseg.models.make import make_segmenter
from contseg.models.mask_decision import semantic_classes
from contseg.models.options import NetworkOptions
from contseg.models.output import score_map

SIDES = st.integers(1, 3000)


@given(height=SIDES, width=SIDES, side=st.integers(1, 700))
def test_windows_are_squares_that_leave_out_nothing(height, width, side):
    tall, wide = min(height, 40 * width), min(width, 40 * height)
    size = size_along(tall, wide, side)
    assert min(size) == side
    found = windows(*size)
    assert all(part.stop - part.start == side for window in found for part in window)
    starts = [max(window[0].start, window[1].start) for window in found]
    assert starts[0] == 0
    assert starts[-1] + side == max(size)
    assert all(0 < after - before <= side for before, after in pairwise(starts))


def test_an_image_of_the_window_is_not_changed():
    images = torch.randint(0, 256, (2, 3, 16, 40), dtype=torch.uint8)
    assert resized(images, 16) is images


@pytest.fixture(scope="module")
def segmenter():
    options = NetworkOptions(
        backbone={"name": "dinov2_reg_tiny", "patch": 8, "size": 32, "options": {"embed_dim": 16, "num_heads": 2}},
        head={"name": "eomt", "queries": 6, "blocks": 2},
    )
    made = make_segmenter(options, [4])
    torch.manual_seed(3)
    with torch.no_grad():
        for one in made.parameters():
            if one.ndim > 1:
                torch.nn.init.normal_(one, std=0.2)
    return made.eval()


@pytest.fixture
def images():
    return torch.randint(0, 256, (2, 3, 36, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def masks_of(segmenter, images):
    with torch.no_grad():
        return segmenter(segmenter.normalise(images)).masks


def test_whole_images_are_decided_by_their_masks_at_full_size(segmenter, images):
    expected = semantic_classes(masks_of(segmenter, images), (36, 60))
    assert torch.equal(predict_batch(segmenter, images), expected)
    assert len(expected.unique()) > 1
    pixels = images[0].permute(1, 2, 0).numpy()
    assert torch.equal(torch.from_numpy(predict_image(segmenter, pixels)).long(), expected[0])
    classes, scores = predict_with_scores(segmenter, pixels)
    assert torch.equal(classes, expected[0])
    assert ((scores > 0) & (scores <= 1)).all()
    values = torch.cat(list(predict_values(segmenter, pixels)), dim=1)
    assert torch.equal(values.argmax(dim=0), expected[0])


def test_windows_average_scores_of_masks_at_the_size_of_the_window(segmenter, images):
    options = InferenceOptions(mode="along", crop=32, average="scores")
    tall = resized(images[:1], 32)
    total, counts = torch.zeros(1, 4, *tall.shape[2:]), torch.zeros(1, 1, *tall.shape[2:])
    for rows, columns in windows(*tall.shape[2:]):
        total[:, :, rows, columns] += semantic_map(masks_of(segmenter, tall[:, :, rows, columns]), (32, 32))
        counts[:, :, rows, columns] += 1
    mean = torch.nn.functional.interpolate(total / counts, (36, 60), mode="bilinear", align_corners=False)
    found = predict_batch(segmenter, images, inference=Inference(options))
    assert (found[0] == mean.argmax(dim=1)[0]).float().mean() > 0.999
    assert len(found.unique()) > 1


def test_exported_scores_are_those_of_masks_at_full_size(segmenter, images):
    with torch.no_grad():
        found = FromRGB(segmenter).eval()(images.float())
    torch.testing.assert_close(found, semantic_map(masks_of(segmenter, images), (36, 60)))


def test_the_evidence_of_a_class_is_the_score_of_its_masks(segmenter, images):
    found = evidence(segmenter, images[0].permute(1, 2, 0).numpy(), 2)
    torch.testing.assert_close(found, score_map(masks_of(segmenter, images[:1]))[0, 2])


@pytest.mark.parametrize("average", ["logits", "scores"])
def test_rasters_are_predicted_in_tiles(segmenter, images, average):
    photo = Photo(images[0].permute(1, 2, 0).numpy())
    inference = Inference(InferenceOptions(mode="slide", crop=32, stride=24, average=average))
    seen = torch.zeros(36, 60)
    for (rows, columns), outputs in predict_tiles(segmenter, photo, inference):
        seen[rows, columns] += 1
        assert outputs.max() < 4
    assert (seen == 1).all()


def test_a_window_that_is_no_square_is_refused():
    with pytest.raises(ValidationError, match="square windows"):
        InferenceOptions(mode="along", crop=[32, 48])
