"""What a recipe says about the network."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from contseg.errors import did_you_mean
from contseg.models.idrnet.options import CONTEXT, IDRNetOptions
from contseg.models.names import BACKBONES, STRIDES, Initialisation

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HEADS = ("deeplabv3-mib", "deeplabv3-ssul", "fcn", "pspnet", "deeplabv3", "upernet")


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
        backbone: `resnet18` to `resnet101`; `swin_tiny`, `swin_small`, `swin_base`, `swin_large`; with the extra `timm` also
            `convnext_tiny`, `convnext_base`, `convnext_large`, `mobilenetv3_large`, `dinov2_small`, `dinov2_base`,
            `dinov3_small`, `dinov3_base`.
        backbone_options: arguments of a backbone that is no ResNet: those of `contseg.models.swin.Swin`, or of timm.
        drop_path: probability that the last block of such a backbone is skipped for an image in training (Swin-Large: 0.3).
        freeze: what of the backbone does not learn: `none`, `norm` (all norms, with their statistics), `stage1` ... `stage4`
            (the stem and so many first stages), `all`.
        head: `deeplabv3-mib` (MiB, PLOP, SDR), `deeplabv3-ssul` (SSUL, IDEC, LAG), `fcn`, `pspnet`, `deeplabv3`, `upernet`.
        idrnet: IDRNet over one of the last four heads, or none.
        auxiliary: a second head on the third stage, for training.
        output_stride: 8, 16 or 32, of a ResNet, and it chooses the dilations of the heads `deeplabv3*`. Other backbones
            always give maps at the strides 4, 8, 16 and 32.
        width: channels of a ResNet's first stage. As `stem`, `slope` and `contracted`, other backbones do not read it.
        stem: `plain` 7x7, or `deep`, three 3x3 (the ResNet-V1c weights of the IDRNet publications).
        initialisation: of a ResNet's convolutions where no weights are loaded, see `initialise_convolutions`. The default
            is PyTorch's; He-normal weights train several points worse from scratch under batch norm.
        head_initialisation: the same in the head; default: as its publications start it (`deeplabv3-mib` `xavier`,
            `deeplabv3-ssul` `he`, the others `torch`).
        norm_momentum: of the backbone's norms.
        head_width: channels of the head's output.
        fpn_width: channels of the pyramid of `upernet`.
        auxiliary_width: channels of the auxiliary head.
        dilations: of the atrous pyramid of `deeplabv3`; default: 1, 12, 24, 36, halved at output stride 16.
        dropout: probability that a channel is dropped before a classifier (not `deeplabv3-mib`).
        slope: of the leaky ReLU of the backbone; 0.01 stands in for in-place ABN, 0 is ReLU.
        head_slope: the same in `deeplabv3-mib`; default: as `slope`. 1 is no activation (SDR's default network).
        contracted: dilation of a stage's first block as torchvision has it.
        pooling_size: evaluation pooling window of `deeplabv3-mib`, in feature pixels.
        decision: `softmax` (classes compete) or `sigmoid` (each class on its own).
        unknown: the outputs begin with "unknown", whose score is added to background's (label policy `ssul`).
        mean, std: of RGB in [0, 1], for normalisation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    backbone: str = "resnet101"
    backbone_options: dict[str, Any] = {}
    drop_path: float = Field(0.0, ge=0, lt=1)
    freeze: Literal["none", "norm", "stage1", "stage2", "stage3", "stage4", "all"] = "none"
    head: str = "deeplabv3-mib"
    idrnet: IDRNetOptions | None = None
    auxiliary: bool = False
    output_stride: int = 16
    width: int = Field(64, ge=1)
    stem: Literal["plain", "deep"] = "plain"
    initialisation: Initialisation = "torch"
    head_initialisation: Initialisation | None = None
    norm_momentum: float = Field(0.1, gt=0, le=1)
    head_width: int = Field(256, ge=1)
    fpn_width: int = Field(512, ge=1)
    auxiliary_width: int = Field(512, ge=1)
    dilations: tuple[int, ...] | None = Field(None, strict=False)  # YAML has lists
    dropout: float = Field(0.1, ge=0, lt=1)
    slope: float = Field(0.01, ge=0)
    head_slope: float | None = Field(None, ge=0)
    contracted: bool = False
    pooling_size: int = Field(32, ge=1)
    decision: Literal["softmax", "sigmoid"] = "softmax"
    unknown: bool = False
    mean: tuple[float, float, float] = Field(IMAGENET_MEAN, strict=False)
    std: tuple[float, float, float] = Field(IMAGENET_STD, strict=False)

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, name: str) -> str:
        return known("backbone", name, BACKBONES)

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

    @model_validator(mode="after")
    def _idrnet_has_a_head(self) -> "NetworkOptions":
        if self.idrnet is not None:
            if self.head not in CONTEXT:
                raise ValueError(f"idrnet: stands over {', '.join(CONTEXT)}, not over {self.head}; set network.head")
            if self.head == "upernet" and self.idrnet.context == "none":
                raise ValueError("idrnet.context: upernet fuses a context, so it cannot be none; use ppm or aspp")
        return self

    @property
    def atrous_rates(self) -> tuple[int, ...]:
        """Dilations of the reference `deeplabv3`."""
        if self.dilations is not None:
            return self.dilations
        return (1, 12, 24, 36) if self.output_stride == 8 else (1, 6, 12, 18)
