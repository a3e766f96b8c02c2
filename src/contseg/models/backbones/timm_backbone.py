"""Convolutional backbones of timm (extra `timm`) as feature pyramids, and the only import of timm."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from contseg.errors import ContsegError
from contseg.models.backbones.backbone import Backbone
from contseg.models.imports import import_library
from contseg.models.names import ARCHITECTURES
from contseg.models.normalization import BatchNorm


def import_timm() -> ModuleType:
    """timm, imported on first use, see `import_library`."""
    return import_library("timm", "timm")


def make_timm_model(name: str, drop_path: float, options: dict[str, Any]) -> Any:
    """A model of timm without its classifier and without weights; nothing is downloaded.

    Raises:
        ContsegError: timm is not installed, or too old for the model.
    """
    timm = import_timm()
    if not timm.is_model(name):
        raise ContsegError(f"timm {timm.__version__} has no model {name}; pip install --upgrade timm")
    model = timm.create_model(name, **{"pretrained": False, "num_classes": 0, "drop_path_rate": drop_path} | options)
    _share_norms(model)
    return model


class NormAct(BatchNorm):
    """Batch norm over all ranks, then an activation: timm's layer has the same parameters but uses one rank only."""

    def __init__(self, replaced: nn.BatchNorm2d):
        super().__init__(replaced.num_features, replaced.eps, replaced.momentum)
        self.act = getattr(replaced, "act", nn.Identity())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return self.act(super().forward(x_BCHW))


def _share_norms(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and not isinstance(child, BatchNorm):
                shared = NormAct(child)
                shared.load_state_dict(child.state_dict())
                setattr(parent, name, shared)


class TimmBackbone(Backbone):
    """ConvNeXt, MobileNetV3 or EfficientNet-Lite of timm, for images of any size.

    ConvNeXt's strided convolutions drop incomplete patches, so its images are padded with zeros at the bottom and right to
    a multiple of 32 and its maps are cropped. The others round up.

    Args:
        name: a key of `ARCHITECTURES`.
        drop_path: probability that the last block is skipped for an image in training.
        options: of timm's constructor, such as `depths` and `dims` of ConvNeXt. With `output_stride` 8 or 16, strides in
            later stages become dilations.

    Returns (forward):
        four maps (B, C_i, ceil(H / s), ceil(W / s)), s = 4, 8, 16, 32, at most the output stride.

    Raises:
        ContsegError: timm is not installed.

    Example:
        >>> import torch
        >>> tiny = TimmBackbone("convnext_tiny", options={"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]})
        >>> [tuple(stage.shape[1:]) for stage in tiny(torch.zeros(1, 3, 65, 81))]
        [(8, 17, 21), (8, 9, 11), (16, 5, 6), (16, 3, 3)]
    """

    def __init__(self, name: str, drop_path: float = 0.0, options: dict[str, Any] | None = None):
        super().__init__()
        self.timm_name, self.indices, self.pads = ARCHITECTURES[name]
        self.model = make_timm_model(self.timm_name, drop_path, options or {})
        self.model.prune_intermediate_layers(list(self.indices), prune_norm=True, prune_head=True)
        self.channels: list[int] = [self.model.feature_info[index]["num_chs"] for index in self.indices]
        self.strides: list[int] = [self.model.feature_info[index]["reduction"] for index in self.indices]
        self.output_stride = self.strides[-1]

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """Four maps, see the class."""
        height, width = images_BCHW.shape[2:]
        images = functional.pad(images_BCHW, (0, -width % 32, 0, -height % 32)) if self.pads else images_BCHW
        maps = self.model.forward_intermediates(
            images, indices=list(self.indices), output_fmt="NCHW", intermediates_only=True
        )
        return [x[:, :, : -(-height // s), : -(-width // s)] for x, s in zip(maps, self.strides, strict=True)]

    def stages(self) -> list[list[nn.Module]]:
        """The modules of each stage, the stem with the first."""
        if hasattr(self.model, "stages"):
            parts = [[stage] for stage in self.model.stages]
            return [[self.model.stem, *parts[0]], *parts[1:]]
        ends = [self.model.feature_info[index]["stage"] for index in self.indices]
        blocks = list(self.model.blocks)
        starts = [0, *ends[:-1]]
        parts = [blocks[start:end] for start, end in zip(starts, ends, strict=True)]
        return [[self.model.conv_stem, self.model.bn1, *parts[0]], *parts[1:]]


@contextmanager
def download_errors(what: str) -> Iterator[None]:
    """Report any error of a download in one line.

    Raises:
        ContsegError: `what` failed.
    """
    try:
        yield
    except ContsegError:
        raise
    except Exception as error:  # a download may raise errors of many libraries
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise ContsegError(f"{what}: {reason}") from None


def to_timm_names(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename published tensors to timm's names where timm supports it (its own, and those of the model's authors).

    Args:
        model: timm's model; position embeddings are resized to its size.
    """
    module = importlib.import_module(type(model).__module__)
    convert = getattr(module, "checkpoint_filter_fn", None)
    return dict(convert(dict(tensors), model)) if convert else tensors
