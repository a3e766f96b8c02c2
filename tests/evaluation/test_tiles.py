"""Images of any size are predicted in blended windows: each pixel once, as in one piece, with bounded memory."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from contseg.errors import ContsegError
from contseg.evaluation import blending, tiles
from contseg.evaluation.inference import WHOLE, Inference, InferenceOptions, accumulate
from contseg.evaluation.predict import predict_image
from contseg.evaluation.tiles import is_out_of_memory, predict_tiles, smaller
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter


@dataclass
class Memory:
    """An image in memory that counts which pixels are read."""

    image: np.ndarray
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.reads = np.zeros(self.size, dtype=int)

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[:2]

    def read(self, rows, columns):
        self.reads[rows, columns] += 1
        return self.image[rows, columns]

    def valid(self, rows, columns):
        return np.ones(self.size, bool)[rows, columns] if self.mask is None else self.mask[rows, columns]


@pytest.fixture
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    network = Segmenter(NetworkOptions(backbone="resnet18", width=4, head_width=8), [4]).eval()
    with torch.no_grad():
        logits = network(network.normalise(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))).logits
        for step in network.classifier.parameters():
            if step.ndim == 1:
                step -= logits.mean(dim=(0, 2, 3))  # no class wins everywhere
    return network


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (150, 400, 3), dtype=np.uint8)


def slide(crop: int, **options) -> Inference:
    return Inference(InferenceOptions(mode="slide", crop=crop, **options))


def assembled(segmenter, source, inference, **options) -> np.ndarray:
    whole, seen = np.zeros(source.size, np.uint8), np.zeros(source.size, int)
    for (rows, columns), part in predict_tiles(segmenter, source, inference, **options):
        whole[rows, columns] = part
        seen[rows, columns] += 1
    assert (seen == 1).all()
    return whole


@pytest.mark.parametrize("options", [{}, {"scales": [0.5, 1.0], "flip": True}, {"average": "scores"}], ids=str)
def test_one_window_is_the_prediction_of_the_whole_image(segmenter, image, options):
    window = slide(400, **options)
    expected = predict_image(segmenter, image, window if options else WHOLE)
    assert np.array_equal(assembled(segmenter, Memory(image), window), expected)


@pytest.mark.parametrize("average", ["logits", "scores"])
def test_with_equal_weights_it_is_the_usual_mean_over_windows(segmenter, image, monkeypatch, average):
    monkeypatch.setattr(tiles, "_weight", lambda window: torch.ones(64, 64))
    inference = slide(64, average=average, windows=1)
    assert np.array_equal(assembled(segmenter, Memory(image), inference), predict_image(segmenter, image, inference))


@pytest.mark.parametrize("crop", [64, 100, 150])
def test_every_pixel_is_read_and_predicted_once(segmenter, image, crop):
    source = Memory(image)
    outputs = assembled(segmenter, source, slide(crop))
    assert source.reads.min() >= 1
    assert len(np.unique(outputs)) > 1


@pytest.mark.parametrize("values", [1, 100_000])
def test_panels_change_nothing(segmenter, image, monkeypatch, values):
    expected = assembled(segmenter, Memory(image), slide(64))
    monkeypatch.setattr(tiles, "STRIP_VALUES", values)
    assert np.array_equal(assembled(segmenter, Memory(image), slide(64)), expected)


@pytest.mark.parametrize("values", [1, 4 * 400 * 7])
@pytest.mark.parametrize("options", [{"crop": 128}, {"crop": [100, 130], "stride": [30, 40]}], ids=str)
def test_logits_that_are_resized_band_by_band_blend_to_the_same_bits(segmenter, image, monkeypatch, values, options):
    mask = np.ones(image.shape[:2], bool)
    mask[:, 130:290] = False
    inference = Inference(InferenceOptions(mode="slide", **options))
    monkeypatch.setattr(blending, "BAND_VALUES", values)
    found = assembled(segmenter, Memory(image, mask), inference)
    monkeypatch.setattr(tiles, "can_band", lambda size: False)
    monkeypatch.setattr(tiles, "blend", None)
    assert np.array_equal(found, assembled(segmenter, Memory(image, mask), inference))


def test_windows_of_a_wide_image_are_predicted_once_as_their_logits_are_small(segmenter, monkeypatch):
    monkeypatch.setattr(tiles, "STRIP_VALUES", 4 * 128 * 300)  # a panel of 300 columns of logits at full size
    wide, calls = np.zeros((128, 1000, 3), np.uint8), []
    assembled(segmenter, Memory(wide), slide(128), on_windows=lambda done, total: calls.append(total))
    assert set(calls) == {12}


def test_a_weight_blends_windows_and_equal_ones_are_the_mean():
    windows = [(slice(0, 2), slice(0, 3)), (slice(0, 2), slice(2, 5))]
    values = torch.stack([torch.zeros(1, 2, 3), torch.ones(1, 2, 3)])
    (mean,) = accumulate([(windows, values)], 5)
    assert mean[0, 0, 0].tolist() == [0, 0, 0.5, 1, 1]
    weight = torch.tensor([[1.0, 2.0, 3.0]] * 2)
    (blended,) = accumulate([(windows, values)], 5, weight)
    assert blended[0, 0, 0].tolist() == [0, 0, 0.25, 1, 1]


def test_the_weight_falls_towards_the_edges_and_is_positive():
    weight = tiles._weight((slice(0, 8), slice(0, 9)))
    assert weight.shape == (8, 9)
    assert torch.allclose(weight, weight.flip(0, 1))
    assert (weight.diff(dim=0)[:3] > 0).all()
    assert (weight.diff(dim=1)[:, :4] > 0).all()
    assert 0 < weight.min() < 0.05 < 0.9 < weight.max()


def test_windows_without_data_are_not_read_and_do_not_change_the_others(segmenter, image):
    mask = np.ones(image.shape[:2], bool)
    mask[:, 200:] = False
    source = Memory(image, mask)
    outputs = assembled(segmenter, source, slide(64))
    assert source.reads[:, 280:].max() == 0
    assert np.array_equal(outputs[:, :140], assembled(segmenter, Memory(image), slide(64))[:, :140])


def test_progress_counts_windows(segmenter, image):
    calls = []
    assembled(segmenter, Memory(image), slide(100), on_windows=lambda done, total: calls.append((done, total)))
    assert calls == [(done, len(calls)) for done in range(1, len(calls) + 1)]


def test_an_image_that_is_too_small_for_the_network_is_refused(segmenter, image):
    with pytest.raises(ContsegError, match="image of 400 x 3 pixels: smaller than the network's output stride of 16"):
        list(predict_tiles(segmenter, Memory(image[:3]), slide(64)))


class TestOutOfMemory:
    @pytest.mark.parametrize(
        ("error", "short"),
        [
            (MemoryError(), True),
            (torch.OutOfMemoryError("CUDA out of memory"), True),
            (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), True),
            (RuntimeError("shapes differ"), False),
        ],
        ids=str,
    )
    def test_errors_of_the_host_and_of_gpus_are_recognised(self, error, short):
        assert is_out_of_memory(error) == short

    @pytest.mark.parametrize("first", [WHOLE, slide(512), slide(1)], ids=["whole", "windows", "windows of a pixel"])
    @pytest.mark.parametrize("size", [(10_000, 10_000), (70, 5000), (64, 64), (5, 5)])
    def test_windows_become_smaller_until_there_are_none_to_try(self, first, size):
        tried, areas = first, []
        while tried := smaller(tried, size):
            areas.append((tried.options.window[0], tried.options.windows))
            assert len(areas) < 20
        assert areas == sorted(set(areas), reverse=True)
        assert all(side >= tiles.SMALLEST or first.options.mode == "slide" for side, _ in areas)
