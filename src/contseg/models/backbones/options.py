"""Options of the backbones, by name. PyTorch is imported when a backbone is made."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from contseg.errors import ContsegError
from contseg.models.names import (
    ARCHITECTURES,
    DEPTHS,
    PATCHES,
    STAGES,
    TRANSFORMERS,
    UNPUBLISHED,
    VARIANTS,
    VITS,
    Freeze,
    Initialisation,
)
from contseg.models.parts import PartOptions, require_options
from contseg.options import Channels, ChannelsOrNone, Depth, Pixels, Share, ShareAboveZero, ShareBelowOne
from contseg.plugins import Registry

if TYPE_CHECKING:
    from contseg.models.backbones.backbone import Backbone
    from contseg.models.eomt.trunk import QueryTrunk

Four = Annotated[tuple[Channels, Channels, Channels, Channels], Field(strict=False)]
Sides = Annotated[tuple[Pixels, Pixels], Field(strict=False)]


class BackboneOptions(PartOptions):
    """Options of every backbone. A subclass overrides `build`.

    Attributes:
        freeze: the frozen part: `none`, `norm` (all norms, with their statistics), `stage1` ... `stage4` (the stem and the
            stages up to this one), `all`.
        norm_momentum: of batch norms.
    """

    freeze: Freeze = "none"
    norm_momentum: ShareAboveZero = 0.1

    @property
    def taps(self) -> tuple[str, ...]:
        """The features of the backbone: maps of its stages before activation."""
        return STAGES

    @property
    def stride(self) -> int:
        """Pixels of the image per pixel of the last map."""
        return 32

    @property
    def published(self) -> bool:
        """Whether there may be published weights of such a backbone."""
        return True

    @property
    def head_stride(self) -> int:
        """The output stride from which heads derive their dilations."""
        return 16

    @property
    def head_slope(self) -> float:
        """The slope of the leaky ReLU in heads that use the backbone's."""
        return 0.01

    def build(self) -> "Backbone":
        """Build the backbone with its initial weights."""
        raise TypeError(f"{type(self).__name__} has no build; backbones override it")

    def make(self) -> "Backbone":
        """An untrained backbone: four maps at the strides 4, 8, 16, 32 (a ResNet: down to its output stride).

        Raises:
            ContsegError: the options are invalid together, or timm is needed and not installed.

        Example:
            >>> SwinOptions(name="swin_tiny", embed_dim=24).make().channels
            [24, 48, 96, 192]
        """
        from contseg.models.normalization import set_momentum

        with self._errors():
            backbone = self.build()
        set_momentum(backbone, self.norm_momentum)
        return backbone

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Report errors of a constructor in one line."""
        try:
            yield
        except (TypeError, ValueError, AssertionError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            given = getattr(self, "options", {})
            key = "network.backbone.options" if given else "network.backbone"
            way = f"correct or remove {', '.join(given)}" if given else "correct its keys"
            raise ContsegError(f"{key}: {self.name} cannot be made of its options ({reason}); {way}") from None


class ResNetOptions(BackboneOptions):
    """ResNet-18 to -101, see `contseg.models.backbones.resnet.ResNet`.

    Attributes:
        output_stride: 8, 16 or 32; it also determines the dilations of the heads `deeplabv3*`.
        width: channels of the first stage.
        stem: `plain` 7x7, or `deep`, three 3x3 (the ResNet-V1c weights of the IDRNet publications).
        initialisation: of the convolutions without loaded weights, see `initialise_convolutions`. The default is
            PyTorch's; He-normal weights train several points worse from scratch with batch norm.
        slope: slope of the leaky ReLU; 0.01 replaces in-place ABN, 0 is ReLU.
        contracted: use torchvision's dilation of a stage's first block.
        branches: 2 doubles a convolution of each block (RCIL), see `contseg.models.branches`; the stem then has no
            activation, as released.
    """

    not_shared: ClassVar[frozenset[str]] = frozenset({"stem"})

    name: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet101"
    output_stride: Literal[8, 16, 32] = 16
    width: Channels = 64
    stem: Literal["plain", "deep"] = "plain"
    initialisation: Initialisation = "torch"
    slope: Share = 0.01
    contracted: bool = False
    branches: Literal[1, 2] = 1

    @property
    def stride(self) -> int:
        """The output stride."""
        return self.output_stride

    @property
    def head_stride(self) -> int:
        """The output stride."""
        return self.output_stride

    @property
    def head_slope(self) -> float:
        """The slope of the backbone."""
        return self.slope

    def build(self) -> "Backbone":
        """A `ResNet`."""
        from contseg.models.backbones.resnet import ResNet
        from contseg.models.backbones.two_branches import TwoBranchResNet

        kind = ResNet if self.branches == 1 else TwoBranchResNet
        return kind(
            self.name,
            self.output_stride,
            self.slope,
            self.width,
            self.contracted,
            deep_stem=self.stem == "deep",
            initialisation=self.initialisation,
        )


class SwinOptions(BackboneOptions):
    """Swin transformers, see `contseg.models.backbones.swin.Swin`.

    Attributes:
        embed_dim, depths, heads, window: override the values of the name.
        mlp_ratio: hidden channels of a block, relative to its channels.
        drop_path: probability that the last block is skipped for an image in training (Swin-Large: 0.3).
    """

    name: Literal["swin_tiny", "swin_small", "swin_base", "swin_large"]
    embed_dim: Channels | None = None
    depths: Four | None = None
    heads: Four | None = None
    window: Channels | None = None
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] = 4.0
    drop_path: ShareBelowOne = 0.0

    def build(self) -> "Backbone":
        """A `Swin`."""
        from contseg.models.backbones.swin import Swin

        changed = {key: getattr(self, key) for key in VARIANTS[self.name] if getattr(self, key) is not None}
        return Swin(**VARIANTS[self.name] | changed, mlp_ratio=self.mlp_ratio, drop_path=self.drop_path)


class TimmOptions(BackboneOptions):
    """Convolutional backbones of timm, see `contseg.models.backbones.timm_backbone.TimmBackbone`.

    Attributes:
        drop_path: probability that the last block is skipped for an image in training.
        options: of timm's constructor, such as `depths` and `dims` of ConvNeXt, or `output_stride`.
    """

    not_shared: ClassVar[frozenset[str]] = frozenset({"options"})

    name: Literal["convnext_tiny", "convnext_base", "convnext_large", "mobilenetv3_large", "efficientnet_lite0"]
    drop_path: ShareBelowOne = 0.0
    options: dict[str, Any] = Field({})

    @property
    def stride(self) -> int:
        """`output_stride` of timm's constructor, or 32."""
        return self.options.get("output_stride", 32)

    @property
    def head_stride(self) -> int:
        """`output_stride` of timm's constructor, or 16."""
        return self.options.get("output_stride", 16)

    def build(self) -> "Backbone":
        """A `TimmBackbone`."""
        from contseg.models.backbones.timm_backbone import TimmBackbone

        return TimmBackbone(self.name, self.drop_path, self.options)


class ViTOptions(BackboneOptions):
    """Plain vision transformers of timm, see `contseg.models.backbones.vit.PlainViT`, or `eomt.trunk` under the head `eomt`.

    Attributes:
        drop_path: probability that the last block is skipped for an image in training.
        size: height and width, or one number for both, of the images for which position embeddings are made; default:
            timm's. For other images they are interpolated in every forward pass. DINOv3 has none.
        patch: side of a patch in pixels; default: 14 (DINOv2) or 16 (DINOv3). Published weights are resampled for another.
        lora: rank of low-rank updates of the attention, with which nothing else of the ViT is trained but a stem; 0: none.
        stem: pairs of residual convolutions after the 3x3 convolutions that embed patches, for training from random weights;
            none: one convolution embeds them, as in published weights.
        options: of timm's constructor, such as `depth`.
    """

    not_shared: ClassVar[frozenset[str]] = frozenset({"options", "stem"})

    name: Literal[
        "dinov2_small",
        "dinov2_base",
        "dinov2_reg_tiny",
        "dinov2_reg_small",
        "dinov2_reg_base",
        "dinov2_reg_large",
        "dinov3_tiny",
        "dinov3_small",
        "dinov3_base",
        "dinov3_large",
    ]
    drop_path: ShareBelowOne = 0.0
    size: Pixels | Sides | None = None
    patch: Annotated[int, Field(ge=2, le=64)] | None = None
    lora: ChannelsOrNone = 0
    stem: Annotated[int, Field(ge=0, le=64)] | None = None
    options: dict[str, Any] = Field({})

    @model_validator(mode="after")
    def _of_whole_patches(self) -> "ViTOptions":
        for side in self.sides or ():
            if side % self.token:
                near = [max(1, side // self.token + up) * self.token for up in (0, 1)]
                raise ValueError(
                    f"size: {side} pixels are not a whole number of patches of {self.token}; set {near[0]} or {near[1]}, or"
                    " another patch"
                )
        return self

    @model_validator(mode="after")
    def _halves_patches(self) -> "ViTOptions":
        if self.stem is not None and self.token & (self.token - 1):
            raise ValueError(
                f"stem: halves images down to a patch, and a patch of {self.token} pixels is no power of 2; set patch: 16"
            )
        return self

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width of `size`."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def published(self) -> bool:
        """Not of the smallest names, and not with a stem."""
        return self.name not in UNPUBLISHED and self.stem is None

    @property
    def token(self) -> int:
        """Side of a patch in pixels.

        Example:
            >>> ViTOptions(name="dinov2_reg_small").token, ViTOptions(name="dinov2_reg_small", patch=16, size=512).token
            (14, 16)
        """
        given = self.patch or self.options.get("patch_size")
        first = given[0] if isinstance(given, list | tuple) and given else given
        return first if isinstance(first, int) else PATCHES[self.name.partition("_")[0]]

    def build(self) -> "Backbone":
        """A `PlainViT`."""
        from contseg.models.backbones.vit import PlainViT

        return PlainViT(self.name, self.drop_path, self.options, self.sides, self.patch, self.lora, self.stem)

    def make_trunk(self) -> "QueryTrunk":
        """An untrained ViT without a pyramid, for the head `eomt`.

        Raises:
            ContsegError: as of `make`, or the blocks have no layer scale.
        """
        from contseg.models.eomt.trunk import QueryTrunk
        from contseg.models.normalization import set_momentum

        with self._errors():
            trunk = QueryTrunk(self.name, self.drop_path, self.options, self.sides, self.patch, self.lora, self.stem)
        set_momentum(trunk, self.norm_momentum)
        return trunk


class VisionTransformerOptions(BackboneOptions):
    """Vision transformers at one resolution, see `contseg.models.backbones.vision_transformer.VisionTransformer`.

    Attributes:
        embed_dim, depth, heads: override the values of the name.
        grid: side of the grid of position embeddings, in patches: 32 for images of 512 pixels. Other images resize them.
        drop_path: probability that the last block is skipped for an image in training.
    """

    name: Literal["vit_tiny", "vit_small", "vit_base"]
    embed_dim: Channels | None = None
    depth: Depth | None = None
    heads: Channels | None = None
    grid: Channels = 32
    drop_path: ShareBelowOne = 0.0

    @property
    def stride(self) -> int:
        """The side of a patch."""
        return 16

    def build(self) -> "Backbone":
        """A `VisionTransformer`."""
        from contseg.models.backbones.vision_transformer import VisionTransformer

        given = TRANSFORMERS[self.name]
        changed = {key: getattr(self, key) for key in given if getattr(self, key) is not None}
        return VisionTransformer(**given | changed, grid=self.grid, drop_path=self.drop_path)


BACKBONES: Registry[type[BackboneOptions]] = Registry(
    "backbones",
    "network.backbone",
    {
        **dict.fromkeys(DEPTHS, ResNetOptions),
        **dict.fromkeys(VARIANTS, SwinOptions),
        **dict.fromkeys(ARCHITECTURES, TimmOptions),
        **dict.fromkeys(VITS, ViTOptions),
        **dict.fromkeys(TRANSFORMERS, VisionTransformerOptions),
    },
    require_options(BackboneOptions),
)
"""Options class of each backbone name. Only `TimmOptions` and `ViTOptions` need timm."""
register_backbone = BACKBONES.register
DEFAULT_BACKBONE = "resnet101"
