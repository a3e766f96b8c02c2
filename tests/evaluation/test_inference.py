"""Windows cover every pixel once or more, looks are averaged, mirrored classes change places, and memory stays bounded."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contseg.errors import ContsegError
from contseg.evaluation.inference import Inference, InferenceOptions, accumulate, infer, views, windows_of
from contseg.evaluation.predict import evaluate, predict_batch, predict_image
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.recipes.read import read_recipe
from contseg.scenarios.batch import Batch

LOOKS = {"scales": [0.5, 1.0, 1.5], "flip": True}


def pixelwise(images):
    """A network without context: what it says of a pixel depends on that pixel alone."""
    return torch.cat([images, 2 * images[:, :1] - images[:, 1:2]], dim=1)


def sided(images):
    """Channel 0 is found on the left half of what is seen, channel 1 on the right."""
    where = torch.linspace(-1, 1, images.shape[3]).expand(len(images), 1, *images.shape[2:])
    return torch.cat([-where, where, images[:, :1]], dim=1)


def slide(crop, stride=None, **options) -> InferenceOptions:
    return InferenceOptions(mode="slide", crop=crop, stride=stride, **options)


@pytest.fixture
def image():
    return torch.randn(1, 3, 37, 53, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(NetworkOptions(backbone="resnet18", width=4, head_width=8), [4]).eval()


@pytest.fixture
def pictures():
    return torch.randint(0, 256, (2, 3, 40, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


# --- windows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (16, 16), (17, 40), (64, 33)])
@pytest.mark.parametrize(("crop", "stride"), [(16, 16), (16, 5), ([9, 16], [9, 1]), (1, 1), (100, None)])
def test_every_pixel_is_seen_and_every_window_is_inside_and_of_one_size(size, crop, stride):
    seen = np.zeros(size, dtype=int)
    windows = windows_of(*size, slide(crop, stride))
    for rows, columns in windows:
        assert 0 <= rows.start < rows.stop <= size[0]
        assert 0 <= columns.start < columns.stop <= size[1]
        seen[rows, columns] += 1
    assert seen.min() >= 1
    assert len({(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in windows}) == 1
    assert len(set(map(str, windows))) == len(windows)


def test_the_stride_is_two_thirds_of_the_window_if_not_told():
    assert slide([640, 473]).strides == (426, 315)
    assert slide(1).strides == (1, 1)
    assert slide(9, [2, 3]).strides == (2, 3)


@pytest.mark.parametrize("size", [(37, 53), (20, 80)])
def test_a_network_without_context_says_the_same_through_windows(size):
    image = torch.randn(2, 3, *size)
    torch.testing.assert_close(infer(pixelwise, image, slide([24, 20], [16, 13])), pixelwise(image))


@pytest.mark.parametrize("crop", [64, [37, 53], 1000])
def test_a_window_that_covers_the_image_is_the_whole_image(segmenter, image, crop):
    def network(images):
        return segmenter(images).logits

    with torch.no_grad():
        for average in ("logits", "scores"):
            whole = infer(network, image, InferenceOptions(average="logits"), scores=segmenter.scores)
            whole = whole if average == "logits" else segmenter.scores(whole)
            said = infer(network, image, slide(crop, average=average), scores=segmenter.scores)
            torch.testing.assert_close(said, whole)


@pytest.mark.parametrize("windows", [1, 3, 100])
def test_no_more_windows_are_run_at_once_than_asked_for_however_large_the_image(windows):
    passes = []

    def network(images):
        passes.append(tuple(images.shape))
        return images

    options = slide(8, 4, windows=windows)
    torch.testing.assert_close(infer(network, image := torch.randn(1, 3, 40, 60), options), image)
    assert all(shape[1:] == (3, 8, 8) and shape[0] <= windows for shape in passes)
    assert sum(shape[0] for shape in passes) == len(windows_of(40, 60, options))


class Storages(TorchDispatchMode):
    """Bytes of every storage that an operation returned, by address and size."""

    def __init__(self):
        super().__init__()
        self.found: dict[tuple[int, int], torch.UntypedStorage] = {}  # kept alive, so that no address comes twice

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.found[storage.data_ptr(), storage.nbytes()] = storage
        return result


@pytest.mark.parametrize("side", [64, 128])
def test_the_only_thing_that_grows_with_the_image_is_the_map_of_the_answer(side):
    network = torch.nn.Conv2d(3, 16, 3, padding=1)
    image = torch.randn(1, 3, side, side)
    with torch.no_grad(), Storages() as storages:
        infer(network, image, slide(16, 10, windows=2))
    given = image.untyped_storage()
    sizes = sorted((size for address, size in storages.found if address != given.data_ptr()), reverse=True)
    answer, two_rows_of_windows = 16 * side * side * 4, 2 * 16 * side * 16 * 4
    assert [size for size in sizes if size > two_rows_of_windows] == [answer]


def test_a_batch_is_seen_image_by_image_where_windows_slide(segmenter, pictures):
    sizes = []
    segmenter.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    predict_batch(segmenter, pictures, inference=Inference(slide(16, windows=3)))
    assert max(sizes) == 3


# --- looks --------------------------------------------------------------------------------------------------------


def test_one_look_is_the_answer_itself(image):
    assert torch.equal(infer(pixelwise, image, InferenceOptions()), pixelwise(image))


@pytest.mark.parametrize("options", [InferenceOptions(flip=True), slide(16, 12, flip=True)])
def test_a_network_that_does_not_mind_mirrors_says_the_same_with_them(image, options):
    torch.testing.assert_close(infer(pixelwise, image, options), pixelwise(image))


def test_left_and_right_change_places_in_a_mirrored_image(image):
    alone = sided(image)
    torch.testing.assert_close(infer(sided, image, InferenceOptions(flip=True), mirror=[(0, 1)]), alone)
    mixed = infer(sided, image, InferenceOptions(flip=True))
    torch.testing.assert_close(mixed[:, :2], torch.zeros_like(mixed[:, :2]))  # told apart no longer
    torch.testing.assert_close(mixed[:, 2], alone[:, 2])


def test_pairs_of_ids_become_pairs_of_positions_and_half_known_pairs_are_left_out():
    inference = Inference.of(InferenceOptions(), [(14, 15), (16, 17), (18, 19)], [0, 18, 16, 19, 14])
    assert inference.mirror == ((1, 3),)


def test_looks_are_averaged_at_the_size_of_the_answer(image):
    said = [
        infer(pixelwise, image, InferenceOptions(scales=[scale], flip=flip), (20, 30))
        for scale in (0.5, 1.0, 1.5)
        for flip in (False, True)
    ]
    together = infer(pixelwise, image, InferenceOptions(**LOOKS), (20, 30))
    assert together.shape == (1, 4, 20, 30)
    torch.testing.assert_close(together, sum(said) / 6)


def test_a_flat_image_is_flat_however_it_is_looked_at():
    flat = torch.tensor([0.5, -1.0, 2.0]).view(1, 3, 1, 1).expand(1, 3, 30, 40)
    for options in (InferenceOptions(**LOOKS), slide(8, 5, **LOOKS), slide(8, fit=[64, 20]), slide(8, resize=[20, 70])):
        torch.testing.assert_close(infer(pixelwise, flat, options), pixelwise(flat))


@pytest.mark.parametrize(("size", "seen"), [((375, 500), (512, 683)), ((100, 900), (228, 2048)), ((2048, 512), (2048, 512))])
def test_an_image_is_fitted_into_a_frame_with_its_aspect_kept(size, seen):
    found = []

    def network(images):
        found.append(tuple(images.shape[2:]))
        return images[:, :, ::8, ::8]

    assert infer(network, torch.zeros(1, 3, *size), InferenceOptions(fit=[2048, 512])).shape[2:] == size
    infer(network, torch.zeros(1, 3, *size), InferenceOptions(resize=[47, 33]))
    assert found == [seen, (47, 33)]


def test_scores_are_averaged_only_if_asked_for(image):
    def scores(logits):
        return logits.softmax(dim=1)

    said = infer(pixelwise, image, InferenceOptions(average="scores", **LOOKS), scores=scores)
    torch.testing.assert_close(said.sum(dim=1), torch.ones(1, 37, 53))
    assert (infer(pixelwise, image, InferenceOptions(**LOOKS), scores=scores).sum(dim=1) - 1).abs().max() > 0.1


def test_a_scale_that_leaves_nothing_is_told(image):
    with pytest.raises(ContsegError, match=r"evaluation.scales: 0.01 leaves nothing of an image of 53x37 pixels"):
        infer(pixelwise, image, InferenceOptions(scales=[1.0, 0.01]))


def test_bf16_is_close_to_float32_and_averages_in_float32(segmenter, pictures):
    images = segmenter.normalise(pictures)
    with torch.no_grad():
        exact, rough = (
            infer(lambda x: segmenter(x).logits, images, slide(32, precision=precision)) for precision in ("32", "bf16")
        )
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert (exact - rough).abs().max() < 0.05 * exact.abs().max()


# --- predictions --------------------------------------------------------------------------------------------------

EVERY_WAY = [
    {},
    {"average": "scores"},
    {"mode": "slide", "crop": 24},
    {"mode": "slide", "crop": [24, 100], "average": "scores", **LOOKS},
    {"fit": [64, 32], "precision": "bf16", **LOOKS},
]


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("options", EVERY_WAY)
def test_a_prediction_has_the_size_of_the_image_and_only_classes_in_it(pictures, options, unknown):
    network = NetworkOptions(backbone="resnet18", width=4, head_width=8, unknown=unknown)
    segmenter = Segmenter(network, [1, 4] if unknown else [4]).eval()
    inference = Inference(InferenceOptions(**options), ((1, 2),))
    said = predict_batch(segmenter, pictures, inference=inference)
    assert said.shape == (2, 40, 48)
    assert 0 <= said.min() <= said.max() < 4
    alone = predict_image(segmenter, pictures[1].permute(1, 2, 0).numpy(), inference)
    assert (said[1].numpy() == alone).mean() > 0.99


def test_it_does_not_matter_how_many_rows_are_decided_at_a_time(segmenter, pictures, monkeypatch):
    inference = Inference(InferenceOptions(mode="slide", crop=16))
    whole = predict_batch(segmenter, pictures, inference=inference)
    monkeypatch.setattr("contseg.evaluation.bands.BAND", 7)
    assert torch.equal(predict_batch(segmenter, pictures, inference=inference), whole)


@pytest.mark.parametrize("average", ["logits", "scores"])
def test_classes_change_places_behind_an_unknown_output_too(pictures, average):
    """A segmenter that sees left and right by the side of the image alone, so that only a swap keeps the two apart."""
    network = NetworkOptions(backbone="resnet18", width=4, head_width=8, unknown=True)
    segmenter = Segmenter(network, [1, 3]).eval()

    def forward(images, taps=()):
        where = torch.linspace(-9, 9, images.shape[3]).expand(len(images), 1, *images.shape[2:])
        none = torch.full_like(where, -30.0)
        return type("Output", (), {"logits": torch.cat([none, none, -where, where], dim=1), "masks": None})

    segmenter.forward = forward
    inference = Inference(InferenceOptions(flip=True, average=average), ((1, 2),))
    said = predict_batch(segmenter, pictures, inference=inference)
    assert (said[:, :, :24] == 1).all()
    assert (said[:, :, 24:] == 2).all()


def test_evaluation_counts_the_labels_at_their_own_size_however_images_are_seen(segmenter, pictures):
    labels = torch.randint(0, 4, (2, 40, 48), generator=torch.Generator().manual_seed(1))
    batch = Batch(pictures, labels, ("a", "b"), torch.ones(2, 4, dtype=torch.bool))
    inference = Inference(InferenceOptions(mode="slide", crop=16, fit=[70, 50], **LOOKS))
    counts = evaluate(segmenter, [batch], 4, inference=inference)
    assert counts.sum(dim=1).tolist() == torch.bincount(labels.flatten()).tolist()
    said = predict_batch(segmenter, pictures, inference=inference)
    assert counts.sum(dim=0).tolist() == torch.bincount(said.flatten(), minlength=4).tolist()


# --- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("evaluation={crop: 64, stride: 65}", "evaluation.stride: a stride of 65 leaves gaps between windows of 64"),
        ("evaluation={crop: [64, 32], stride: 40}", "evaluation.stride: a stride of 40 leaves gaps between windows of 32"),
        ("evaluation.crop=0", "evaluation.crop"),
        ("evaluation.crop=[5, 5, 5]", "evaluation.crop"),
        ("evaluation.scales=[]", "evaluation.scales"),
        ("evaluation.scales=[0]", "evaluation.scales"),
        ("evaluation.mode=slid", "evaluation.mode"),
        ("evaluation.strid=3", "evaluation.strid: unknown key (got 3); did you mean 'stride'"),
        ("evaluation={fit: [9, 9], resize: [9, 9]}", "evaluation.resize: resize [9, 9] and fit [9, 9] exclude each other"),
    ],
)
def test_wrong_options_are_told_in_one_line_with_their_key(override, told):
    with pytest.raises(ContsegError) as error:
        read_recipe("digits/plop_5-1", [override])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_may_be_written_as_people_write_them():
    overrides = ["evaluation={mode: slide, crop: 64, stride: [40, 64], scales: [0.5, 1], precision: 32}"]
    options = read_recipe("digits/plop_5-1", overrides).evaluation
    assert options == InferenceOptions(mode="slide", crop=64, stride=[40, 64], scales=[0.5, 1.0])
    assert options.precision == "32"


def test_options_are_checked_where_they_are_made():
    with pytest.raises(ValidationError, match="leaves gaps"):
        slide(8, 9)


def test_measuring_often_means_one_scale():
    options = InferenceOptions(mode="slide", crop=9, **LOOKS)
    assert options.single() == InferenceOptions(mode="slide", crop=9)


@pytest.mark.parametrize("windows", [1, 3, 50])
@pytest.mark.parametrize("size", [(37, 29), (16, 16), (9, 40)])
def test_a_raster_that_is_read_window_by_window_gives_the_same_bits(size, windows):
    torch.manual_seed(0)
    raster, options = torch.randn(2, 3, *size), slide(16, 11, windows=windows)
    network = torch.nn.Conv2d(3, 5, 3, padding=1).requires_grad_(False)

    def parts():
        for group in views(*size, options):
            yield group, network(torch.cat([raster[:, :, rows, columns] for rows, columns in group]))

    strips = list(accumulate(parts(), size[1]))
    assert torch.equal(torch.cat(strips, dim=2), infer(network, raster, options))
    if size[0] > 16 and windows == 1:
        assert len(strips) > 1, "rows are there before the last window"
