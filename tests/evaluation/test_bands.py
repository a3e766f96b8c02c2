"""Deciding in bands of rows gives bit for bit what the whole map gives, and never holds it."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contseg.evaluation import bands
from contseg.evaluation.bands import RowResizer, is_large, rows_of_band
from contseg.evaluation.inference import Inference, InferenceOptions, infer, infer_in_bands
from contseg.evaluation.predict import predict_batch, predict_image
from contseg.models.layers import resize
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

SIZES = [
    ((33, 47), (257, 371)),  # no whole factor
    ((16, 20), (128, 160)),  # a whole factor
    ((40, 130), (40, 333)),  # rows stay
    ((50, 150), (201, 150)),  # columns stay
    ((51, 170), (52, 170)),
    ((90, 200), (61, 130)),  # smaller
    ((1, 9), (40, 140)),
    ((2, 9), (3, 140)),
    ((60, 140), (60, 140)),
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["planes", "pixels"])
@pytest.mark.parametrize("channels", [1, 3, 4, 21])
@pytest.mark.parametrize(("small", "size"), SIZES, ids=str)
def test_rows_are_those_of_the_whole_map_bit_for_bit(small, size, channels, layout):
    generator = torch.Generator().manual_seed(0)
    for batch in (1, 2):
        logits = (10 * torch.randn(batch, channels, *small, generator=generator)).contiguous(memory_format=layout)
        resizer = RowResizer(logits, size)
        rows = [resizer.rows(top, min(top + 37, size[0])) for top in range(0, size[0], 37)]
        assert torch.equal(torch.cat(rows, dim=2), resize(logits, size))


WAYS = [
    {},
    {"average": "scores"},
    {"scales": [0.5, 1.0, 1.7], "flip": True},
    {"scales": [0.5, 1.0], "average": "scores"},
    {"fit": [210, 190]},
    {"mode": "slide", "crop": 64},
    {"mode": "slide", "crop": [70, 50], "stride": [13, 50], "windows": 3, "average": "scores"},
    {"mode": "slide", "crop": 64, "resize": [99, 150]},
    {"mode": "slide", "crop": 64, "scales": [0.7, 1.0], "flip": True},
]


@pytest.fixture
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(NetworkOptions(backbone="resnet18", width=4, head_width=8), [6]).eval()


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (121, 187, 3), dtype=np.uint8)


@pytest.fixture
def in_bands(monkeypatch):
    """Every answer is large."""
    monkeypatch.setattr(bands, "WHOLE_ELEMENTS", 0)
    monkeypatch.setattr(bands, "BAND_ELEMENTS", 6 * 187 * 11)


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_answers_in_bands_are_the_whole_answer_bit_for_bit(segmenter, picture, in_bands, options):
    options = InferenceOptions(**options)
    image = segmenter.normalise(torch.from_numpy(picture).permute(2, 0, 1)[None])
    with torch.no_grad():
        whole = infer(lambda seen: segmenter(seen).logits, image, options, None, segmenter.scores, [(1, 2)])
        parts = list(infer_in_bands(lambda seen: segmenter(seen).logits, image, options, None, segmenter.scores, [(1, 2)]))
    assert len(parts) > 1
    assert torch.equal(torch.cat(parts, dim=2), whole)


@pytest.mark.parametrize("decision", ["softmax", "sigmoid"])
@pytest.mark.parametrize("options", WAYS, ids=str)
def test_decisions_in_bands_are_those_of_the_whole_map(picture, in_bands, options, decision):
    torch.manual_seed(0)
    network = NetworkOptions(backbone="resnet18", width=4, head_width=8, decision=decision, unknown=True)
    segmenter = Segmenter(network, [1, 5]).eval()
    options = InferenceOptions(**options)
    images = torch.from_numpy(np.stack([picture, picture[::-1]])).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        for number, image in enumerate(images.split(1)):
            said = infer(lambda seen: segmenter(seen).logits, segmenter.normalise(image), options, None, segmenter.scores)
            scores = said if options.average == "scores" else segmenter.scores(said)
            assert torch.equal(
                predict_batch(segmenter, images, inference=Inference(options))[number], scores[0].argmax(dim=0)
            )


class _Largest(TorchDispatchMode):
    """The most bytes that any tensor of a computation needs."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("options", [{}, {"flip": True}, {"mode": "slide", "crop": 32}], ids=str)
def test_no_tensor_is_as_large_as_the_whole_answer(in_bands, options):
    """60 classes on 300 x 400 pixels are 29 MB."""
    segmenter = Segmenter(NetworkOptions(backbone="resnet18", width=4, head_width=8), [60]).eval()
    picture = np.zeros((300, 400, 3), np.uint8)
    with _Largest() as largest:
        assert predict_image(segmenter, picture, Inference(InferenceOptions(**options))).shape == (300, 400)
    assert largest.bytes < 60 * 300 * 400 * 4 / 4


def test_a_band_of_a_large_photo_is_small():
    assert rows_of_band(1, 151, 3000) * 151 * 3000 * 4 < 150e6
    assert is_large(1, 151, (2000, 3000))
    assert not is_large(1, 21, (513, 513))
    assert rows_of_band(24, 151, 100_000) == 1
