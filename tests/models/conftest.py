"""Tiny networks."""

import pytest
import torch

from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter


@pytest.fixture
def make_segmenter():
    """A seeded tiny segmenter: `make_segmenter(widths, **options)`."""

    def make(widths=(3,), **options) -> Segmenter:
        torch.manual_seed(0)
        tiny = {"backbone": "resnet18", "width": 4, "head_width": 8, "output_stride": 16}
        return Segmenter(NetworkOptions(**tiny | options), list(widths))

    return make
