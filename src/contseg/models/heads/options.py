"""Options of the heads, by name. PyTorch is imported when a head is made."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from contseg.models.heads.idrnet.options import CONTEXT, IDRNetOptions
from contseg.models.names import ASPP_TAPS, Initialisation
from contseg.models.parts import PartOptions, require_options
from contseg.options import Channels, ChannelsOrNone, Pixels, Share, ShareBelowOne
from contseg.plugins import Registry

if TYPE_CHECKING:
    from contseg.models.heads.deeplabv3_mib import DeepLabV3MiB
    from contseg.models.heads.head import Head

Dilations = Annotated[tuple[Pixels, ...], Field(strict=False)]
Span = Annotated[tuple[Share, Share], Field(strict=False)]


@dataclass(frozen=True)
class HeadInput:
    """Properties of the network that a head is made for.

    Args:
        channels: channels of the backbone's stages.
        widths: outputs of each step so far.
        output_stride: output stride from which the head derives its dilations.
        slope: slope of the backbone's leaky ReLU.
        unknown: as of `GrowingClassifier`.
    """

    channels: list[int]
    widths: list[int]
    output_stride: int = 16
    slope: float = 0.01
    unknown: bool = False


class HeadOptions(PartOptions):
    """Options of every head. A subclass overrides `make`.

    Class attributes:
        taps: names of the head's own features.
        hidden: whether each step's classifier has its own convolution, norm and ReLU.
        masks: whether it predicts masks and their classes, not a class for each pixel.

    Attributes:
        width: channels of the output.
        initialisation: of the convolutions without loaded weights; default: that of the publications (`deeplabv3-mib`
            `xavier`, `deeplabv3-ssul` `he`, the others `torch`).
    """

    taps: ClassVar[tuple[str, ...]] = ()
    hidden: ClassVar[bool] = False
    masks: ClassVar[bool] = False

    width: Channels = 256
    initialisation: Initialisation | None = None

    @property
    def refinement(self) -> IDRNetOptions | None:
        """IDRNet over this head, or None."""
        return None

    @property
    def available(self) -> tuple[str, ...]:
        """Those of `taps` that these options have."""
        return self.taps

    def make(self, below: HeadInput) -> "Head":
        """Make the untrained head."""
        raise TypeError(f"{type(self).__name__} has no make; heads override it")


class DeepLabV3MiBOptions(HeadOptions):
    """The head of MiB, PLOP and SDR, see `contseg.models.heads.deeplabv3_mib.DeepLabV3MiB`.

    Attributes:
        slope: of the leaky ReLU; default: that of the backbone. 1 is the identity (SDR's default network).
        pooling_size: side of the evaluation pooling window, in feature pixels.
        output_stride: 8, 16 or 32, for its dilations; default: that of a ResNet, 16 over other backbones.
    """

    name: Literal["deeplabv3-mib"] = "deeplabv3-mib"
    slope: Share | None = None
    pooling_size: Pixels = 32
    output_stride: Literal[8, 16, 32] | None = None

    def make(self, below: HeadInput) -> "Head":
        """A `DeepLabV3MiB`."""
        return self._kind()(below.channels, *self._sizes(below))

    def _kind(self) -> "type[DeepLabV3MiB]":
        from contseg.models.heads.deeplabv3_mib import DeepLabV3MiB

        return DeepLabV3MiB

    def _sizes(self, below: HeadInput) -> tuple[int, int, float, int]:
        """Width, output stride, slope and pooling size."""
        slope = below.slope if self.slope is None else self.slope
        return self.width, self.output_stride or below.output_stride, slope, self.pooling_size


class DeepLabV3RCILOptions(DeepLabV3MiBOptions):
    """The head of RCIL, see `contseg.models.heads.deeplabv3_rcil.DeepLabV3RCIL`; options as of `deeplabv3-mib`."""

    name: Literal["deeplabv3-rcil"] = "deeplabv3-rcil"  # type: ignore[assignment]

    def _kind(self) -> "type[DeepLabV3MiB]":
        from contseg.models.heads.deeplabv3_rcil import DeepLabV3RCIL

        return DeepLabV3RCIL


class DeepLabV3SSULOptions(HeadOptions):
    """The head of SSUL, IDEC and LAG, see `contseg.models.heads.deeplabv3_ssul.DeepLabV3SSUL`.

    Attributes:
        dropout: probability that an element is dropped in training.
        output_stride: 8, 16 or 32, for its dilations; default: that of a ResNet, 16 over other backbones.
    """

    taps: ClassVar[tuple[str, ...]] = ASPP_TAPS
    hidden: ClassVar[bool] = True

    name: Literal["deeplabv3-ssul"] = "deeplabv3-ssul"
    dropout: ShareBelowOne = 0.1
    output_stride: Literal[8, 16, 32] | None = None

    def make(self, below: HeadInput) -> "Head":
        """A `DeepLabV3SSUL`."""
        from contseg.models.heads.deeplabv3_ssul import DeepLabV3SSUL

        return DeepLabV3SSUL(below.channels, self.width, self.output_stride or below.output_stride, self.dropout)


class DeepLabV3DKDOptions(HeadOptions):
    """The head of DKD, STAR and Adapter, see `contseg.models.heads.deeplabv3_dkd.DeepLabV3DKD`.

    Attributes:
        dropout: probability that an element is dropped in training.
        output_stride: 8, 16 or 32, for its dilations; default: that of a ResNet, 16 over other backbones.
    """

    name: Literal["deeplabv3-dkd"] = "deeplabv3-dkd"
    dropout: ShareBelowOne = 0.1
    output_stride: Literal[8, 16, 32] | None = None

    def make(self, below: HeadInput) -> "Head":
        """A `DeepLabV3DKD`."""
        from contseg.models.heads.deeplabv3_dkd import DeepLabV3DKD

        return DeepLabV3DKD(below.channels, self.width, self.output_stride or below.output_stride, self.dropout)


class ContextHeadOptions(HeadOptions):
    """Options shared by the heads of the IDRNet publications. A subclass overrides `plain`.

    Attributes:
        dropout: probability that a channel is dropped before the classifier.
        idrnet: IDRNet over this head, or none.
        dilations: dilations of the atrous pyramid of `deeplabv3` and of IDRNet with context `aspp`; default: 1, 12, 24, 36
            at output stride 8 and 1, 6, 12, 18 otherwise.
    """

    dropout: ShareBelowOne = 0.1
    idrnet: IDRNetOptions | None = None
    dilations: Dilations | None = None

    @model_validator(mode="after")
    def _dilations_of_a_pyramid(self) -> "ContextHeadOptions":
        if self.dilations is not None and self.context != "aspp":
            raise ValueError(
                f"dilations: {self.name} has no atrous pyramid; leave dilations out, or set idrnet.context=aspp"
            )
        return self

    @property
    def refinement(self) -> IDRNetOptions | None:
        """IDRNet over this head, or None."""
        return self.idrnet

    @property
    def context(self) -> str:
        """The context module: `none`, `ppm` or `aspp`."""
        return CONTEXT[self.name] if self.idrnet is None else self.idrnet.context_of(self.name)

    def rates(self, output_stride: int) -> tuple[int, ...]:
        """The dilations of the atrous pyramid."""
        if self.dilations is not None:
            return self.dilations
        return (1, 12, 24, 36) if output_stride == 8 else (1, 6, 12, 18)

    def make(self, below: HeadInput) -> "Head":
        """The head, or IDRNet over it."""
        if self.idrnet is None:
            return self.plain(below)
        from contseg.models.heads.idrnet.network import IDRNet

        return IDRNet(
            below.channels,
            below.widths,
            self.idrnet,
            self.name,
            self.width,
            getattr(self, "fpn_width", self.width),
            self.rates(below.output_stride),
            self.dropout,
            below.unknown,
        )

    def plain(self, below: HeadInput) -> "Head":
        """The head itself."""
        raise TypeError(f"{type(self).__name__} has no plain; heads override it")


class FCNOptions(ContextHeadOptions):
    """See `contseg.models.heads.fcn.FCN`."""

    name: Literal["fcn"] = "fcn"

    def plain(self, below: HeadInput) -> "Head":
        """An `FCN`."""
        from contseg.models.heads.fcn import FCN

        return FCN(below.channels, self.width, self.dropout)


class PSPNetOptions(ContextHeadOptions):
    """See `contseg.models.heads.pspnet.PSPNet`."""

    name: Literal["pspnet"] = "pspnet"

    def plain(self, below: HeadInput) -> "Head":
        """A `PSPNet`."""
        from contseg.models.heads.pspnet import PSPNet

        return PSPNet(below.channels, self.width, self.dropout)


class DeepLabV3Options(ContextHeadOptions):
    """See `contseg.models.heads.deeplabv3.DeepLabV3`."""

    name: Literal["deeplabv3"] = "deeplabv3"

    def plain(self, below: HeadInput) -> "Head":
        """A `DeepLabV3`."""
        from contseg.models.heads.deeplabv3 import DeepLabV3

        return DeepLabV3(below.channels, self.width, self.rates(below.output_stride), self.dropout)


class UperNetOptions(ContextHeadOptions):
    """See `contseg.models.heads.upernet.UperNet`.

    Attributes:
        fpn_width: channels of the pyramid.
    """

    name: Literal["upernet"] = "upernet"
    fpn_width: Channels = 512

    @model_validator(mode="after")
    def _fuses_a_context(self) -> "UperNetOptions":
        if self.context == "none":
            raise ValueError("idrnet.context: upernet fuses a context, so it cannot be none; use ppm or aspp")
        return self

    def plain(self, below: HeadInput) -> "Head":
        """A `UperNet`."""
        from contseg.models.heads.upernet import UperNet

        return UperNet(below.channels, self.width, self.fpn_width, self.dropout)


class HypercolumnOptions(HeadOptions):
    """See `contseg.models.heads.hypercolumn.Hypercolumn`.

    Attributes:
        width: channels of the output; 0: the maps of the backbone themselves, normalised.
        dropout: probability that a channel is dropped before the classifier.
    """

    name: Literal["hypercolumn"] = "hypercolumn"
    width: ChannelsOrNone = 256
    dropout: ShareBelowOne = 0.1

    def make(self, below: HeadInput) -> "Head":
        """A `Hypercolumn`."""
        from contseg.models.heads.hypercolumn import Hypercolumn

        return Hypercolumn(below.channels, self.width, self.dropout)


class EoMTOptions(HeadOptions):
    """Queries in the last blocks of a plain ViT, which predict masks and their classes, see `contseg.models.eomt`.

    Attributes:
        width, initialisation: always 0 and none: those of the ViT and of PyTorch.
        queries: number of queries.
        blocks: number of last blocks that the queries pass.
        annealing: for each of these blocks, the shares of a step's updates at which its masked attention begins to be opened
            and is open; default: one block after the other, from 1 / (blocks + 2) on, as published for DINOv2.
        masked: in which steps attention is masked at first: in the `first`, in `every`, or in `none`.
        start: `learned` queries, or the `patches` that look most like a class (SimCIS), as many as there are queries.
        shares: what mask logits become: a `sigmoid` of each, or a `softmax` over queries, which then compete for each pixel.
    """

    not_shared: ClassVar[frozenset[str]] = frozenset({"width", "initialisation"})
    masks: ClassVar[bool] = True
    taps: ClassVar[tuple[str, ...]] = ("tokens", "queries")

    name: Literal["eomt"] = "eomt"
    width: Literal[0] = 0
    initialisation: None = None
    queries: Channels = 100
    blocks: Annotated[int, Field(ge=1, le=64)] = 4
    annealing: Annotated[tuple[Span, ...], Field(strict=False)] | None = None
    masked: Literal["first", "every", "none"] = "first"
    start: Literal["learned", "patches"] = "learned"
    shares: Literal["sigmoid", "softmax"] = "sigmoid"

    @property
    def available(self) -> tuple[str, ...]:
        """Of patches, also what is selected: `selection` and `selected`."""
        return (*self.taps, "selection", "selected") if self.start == "patches" else self.taps

    @model_validator(mode="after")
    def _spans_of_every_block(self) -> "EoMTOptions":
        if self.annealing is not None:
            if len(self.annealing) != self.blocks:
                raise ValueError(f"annealing: {len(self.annealing)} spans for {self.blocks} blocks; give one for each block")
            if wrong := [span for span in self.annealing if span[0] > span[1]]:
                raise ValueError(f"annealing: {list(wrong[0])} ends before it begins; exchange the two shares")
        return self

    def make(self, below: HeadInput) -> "Head":
        """An `EoMTHead`."""
        from contseg.models.eomt.head import EoMTHead

        return EoMTHead(
            below.channels[-1], self.queries, self.blocks, below.output_stride, self.annealing, self.start == "patches"
        )


HEADS: Registry[type[HeadOptions]] = Registry(
    "heads",
    "network.head",
    {
        "deeplabv3-mib": DeepLabV3MiBOptions,
        "deeplabv3-rcil": DeepLabV3RCILOptions,
        "deeplabv3-ssul": DeepLabV3SSULOptions,
        "deeplabv3-dkd": DeepLabV3DKDOptions,
        "fcn": FCNOptions,
        "pspnet": PSPNetOptions,
        "deeplabv3": DeepLabV3Options,
        "upernet": UperNetOptions,
        "hypercolumn": HypercolumnOptions,
        "eomt": EoMTOptions,
    },
    require_options(HeadOptions),
)
"""Options class of each head name."""
register_head = HEADS.register
DEFAULT_HEAD = "deeplabv3-mib"
