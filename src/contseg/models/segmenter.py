"""A segmenter: backbone, head, growing classifier."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from contseg.errors import ContsegError, did_you_mean
from contseg.models.classifier import GrowingClassifier, Start
from contseg.models.heads.deeplabv3 import DeepLabV3
from contseg.models.resnet import DEPTHS, STRIDES, ResNet

TAPS = ("stage1", "stage2", "stage3", "stage4", "head", "logits")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


HEADS = ("deeplabv3-mib",)


def known(kind: str, name: str, names: Iterable[str]) -> str:
    """The name, if it is one of the names.

    Raises:
        ValueError: it is not; the message suggests the nearest.
    """
    if name not in names:
        raise ValueError(f"unknown {kind} '{name}'; {did_you_mean(name, names)}")
    return name


class NetworkOptions(BaseModel):
    """What a segmenter is made of.

    Attributes:
        backbone: `resnet18` to `resnet101`.
        head: `deeplabv3-mib`.
        output_stride: 8, 16 or 32.
        width: channels of the backbone's first stage.
        head_width: channels of the head's output.
        slope: of the leaky ReLU; 0.01 stands in for in-place ABN, 0 is ReLU.
        contracted: dilation of a stage's first block as torchvision has it.
        pooling_size: evaluation pooling window of the head, in feature pixels.
        decision: `softmax` (classes compete) or `sigmoid` (each class on its own).
        unknown: the outputs begin with "unknown", whose score is added to background's (label policy `ssul`).
        mean, std: of RGB in [0, 1], for normalisation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    backbone: str = "resnet101"
    head: str = "deeplabv3-mib"
    output_stride: int = 16
    width: int = Field(64, ge=1)
    head_width: int = Field(256, ge=1)
    slope: float = Field(0.01, ge=0)
    contracted: bool = False
    pooling_size: int = Field(32, ge=1)
    decision: Literal["softmax", "sigmoid"] = "softmax"
    unknown: bool = False
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, name: str) -> str:
        return known("backbone", name, DEPTHS)

    @field_validator("head")
    @classmethod
    def _known_head(cls, name: str) -> str:
        return known("head", name, HEADS)

    @field_validator("output_stride")
    @classmethod
    def _possible_stride(cls, stride: int) -> int:
        if stride not in STRIDES:
            raise ValueError(f"output stride {stride} is not possible; choose {', '.join(map(str, STRIDES))}")
        return stride


@dataclass
class SegmenterOutput:
    """What a segmenter says of a batch.

    Args:
        logits: (B, K, h, w), at feature resolution.
        features: the taps that were asked for, by name.
        auxiliary: (name, logits (B, K, h, w), weight) of each auxiliary head.
    """

    logits: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    auxiliary: list[tuple[str, Tensor, float]] = field(default_factory=list)
    _resized: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False, repr=False)

    def logits_at(self, size: tuple[int, int]) -> Tensor:
        """Logits bilinearly resized to (H, W), in float32 or better; computed once however many terms ask."""
        if size not in self._resized:
            self._resized[size] = resize_logits(self.logits, size)
        return self._resized[size]


def resize_logits(logits_BKHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear (corners not aligned), in float32 or better."""
    precise = logits_BKHW.to(torch.promote_types(logits_BKHW.dtype, torch.float32))
    return functional.interpolate(precise, size, mode="bilinear", align_corners=False)


class Segmenter(nn.Module):
    """Images to logits, growing with the classes.

    Args:
        options: the network.
        widths: outputs of each step so far, background counted in the first; with `options.unknown` preceded by a 1.

    Example:
        >>> segmenter = Segmenter(NetworkOptions(backbone="resnet18", width=8, head_width=16, output_stride=8), [3])
        >>> segmenter.grow(1, "background")
        >>> output = segmenter(torch.zeros(2, 3, 64, 64), taps=("stage4",))
        >>> output.logits.shape, output.features["stage4"].shape, output.logits_at((64, 64)).shape
        (torch.Size([2, 4, 8, 8]), torch.Size([2, 64, 8, 8]), torch.Size([2, 4, 64, 64]))
    """

    mean: Tensor
    std: Tensor

    def __init__(self, options: NetworkOptions, widths: Sequence[int]):
        super().__init__()
        self.options = options
        self.backbone = ResNet(options.backbone, options.output_stride, options.slope, options.width, options.contracted)
        self.head = DeepLabV3(
            self.backbone.channels[-1], options.head_width, options.output_stride, options.slope, options.pooling_size
        )
        self.classifier = GrowingClassifier(options.head_width, list(widths), options.unknown)
        self.register_buffer("mean", torch.tensor(options.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(options.std).view(1, 3, 1, 1), persistent=False)
        self.backbone.initialise()
        self.head.initialise()

    def forward(self, images_BCHW: Tensor, taps: Sequence[str] = ()) -> SegmenterOutput:
        """Logits, and the features asked for.

        Args:
            images_BCHW: normalised images, see `normalise`.
            taps: any of `stage1` ... `stage4` (sums before activation), `head`, `logits`.

        Raises:
            ContsegError: a tap that this network lacks.
        """
        stages = self.backbone(images_BCHW)
        decoded = self.head(self.backbone.activate(stages[-1]))
        logits = self.classifier(decoded)
        tapped = dict(zip(TAPS, [*stages, decoded, logits], strict=True))
        unknown = [tap for tap in taps if tap not in tapped]
        if unknown:
            raise ContsegError(f"tap '{unknown[0]}': {self.options.backbone} with {self.options.head} has {', '.join(TAPS)}")
        return SegmenterOutput(logits, {tap: tapped[tap] for tap in taps})

    def normalise(self, images_BCHW: Tensor) -> Tensor:
        """uint8 RGB (B, 3, H, W) to what `forward` takes, on the images' device."""
        return (images_BCHW.to(self.mean.dtype) / 255 - self.mean) / self.std

    @property
    def widths(self) -> list[int]:
        """Outputs of each step so far."""
        return self.classifier.widths

    def grow(self, count: int, start: Start = "background") -> None:
        """Add `count` classes to everything sized by classes; see `GrowingClassifier.grow`."""
        self.classifier.grow(count, start)

    def scores(self, logits_BKHW: Tensor) -> Tensor:
        """Scores of the classes, (B, K, H, W); the decision is their arg max. The only place that knows the rule.

        An unknown output is not among them: it counts for the background.
        """
        scores = logits_BKHW.softmax(dim=1) if self.options.decision == "softmax" else logits_BKHW.sigmoid()
        if not self.options.unknown:
            return scores
        return torch.cat([scores[:, :1] + scores[:, 1:2], scores[:, 2:]], dim=1)

    @torch.no_grad()
    def observe(self, output: SegmenterOutput, labels_BHW: Tensor, context: Any) -> None:
        """Called after the losses of every iteration with the method's final labels; here there is nothing to update."""
