"""Options of a whole network: its parts, and the options outside of them."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from contseg.errors import did_you_mean
from contseg.models.adopted.options import ADOPTED, AdoptedHeadOptions, AdoptedOptions
from contseg.models.backbones.options import BACKBONES, DEFAULT_BACKBONE, BackboneOptions, ResNetOptions, ViTOptions
from contseg.models.heads.idrnet.options import IDRNetOptions
from contseg.models.heads.options import DEFAULT_HEAD, HEADS, DeepLabV3MiBOptions, HeadInput, HeadOptions
from contseg.models.names import RESIDUAL_TAPS, STAGES, VITS, Background, Decision
from contseg.models.old_options import nested
from contseg.models.parts import chosen, shared_keys
from contseg.options import Channels, ChannelsOrNone, Count, Factor, Options, ShareBelowOne

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TAPS = (*STAGES, "head", "logits")
ReadoutTap = Literal["stage1", "stage2", "stage3", "stage4", "head", "pyramid"]
Centre = Annotated[float, Field(ge=-1000, le=1000)]
Colour = Annotated[tuple[Centre, Centre, Centre], Field(strict=False)]
Deviation = Annotated[tuple[Factor, Factor, Factor], Field(strict=False)]


class AuxiliaryOptions(Options):
    """A second head on the third stage, for training.

    Attributes:
        width: channels of its convolution.
        dropout: probability that a channel is dropped before its classifier.
    """

    width: Channels = 512
    dropout: ShareBelowOne = 0.1


class ReadoutOptions(Options):
    """A classifier with computed weights, in place of the learned one. Method `gaussian` sets it after step 0.

    Attributes:
        tap: the feature that it reads, see `NetworkOptions.taps`.
        expansion: channels of a fixed random convolution with ReLU before it; 0 has none.
        centres: further centres of background; the highest score counts.
        distance: background is what is far from every class (Mahalanobis distance), not a class.
    """

    tap: ReadoutTap = "head"
    expansion: ChannelsOrNone = 0
    centres: Count = 0
    distance: bool = False


class NetworkOptions(Options):
    """Options of a segmenter.

    Attributes:
        backbone: a name of `BACKBONES`, or its name and options.
        head: a name of `HEADS`, or its name and options.
        auxiliary: a second head for training: its options, `true` for its defaults, or none.
        decision: `softmax` (classes compete) or `sigmoid` (classes are independent).
        unknown: the first output is "unknown", whose score is added to background's (label policy `ssul`).
        background: `learned`: an output like the classes. `constant`: there is no such output, its logit is 0, so with
            `sigmoid`, or with masks, a pixel is background where no class has a score over one half. `auxiliary`: as
            `constant`, with an auxiliary classifier from which new classes start (DKD). `residual`: an output of step 0 that
            every later step lowers by a residual of its own; each step has its own 3x3 convolution, norm and ReLU (BARM).
        mean, std: of RGB in [0, 1], for normalisation.
        readout: a classifier with computed weights; none has the learned one.

    Example:
        >>> network = NetworkOptions(backbone={"name": "resnet50", "output_stride": 8}, head="upernet")
        >>> network.backbone.stride, network.head.name, network.head.width
        (8, 'upernet', 256)
    """

    backbone: SerializeAsAny[BackboneOptions] = ResNetOptions()
    head: SerializeAsAny[HeadOptions] = DeepLabV3MiBOptions()
    auxiliary: AuxiliaryOptions | None = None
    decision: Decision = "softmax"
    unknown: bool = False
    background: Background = "learned"
    mean: Colour = IMAGENET_MEAN
    std: Deviation = IMAGENET_STD
    readout: ReadoutOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _keys_of_earlier_versions(cls, values: Any) -> Any:
        return nested(values) if isinstance(values, Mapping) else values

    @field_validator("backbone", mode="before")
    @classmethod
    def _chosen_backbone(cls, value: Any) -> Any:
        return AdoptedOptions.model_validate(value) if _is_adopted(value) else chosen(BACKBONES, DEFAULT_BACKBONE, value)

    @field_validator("head", mode="before")
    @classmethod
    def _chosen_head(cls, value: Any) -> Any:
        return AdoptedHeadOptions.model_validate(value) if _is_adopted(value) else chosen(HEADS, DEFAULT_HEAD, value)

    @model_validator(mode="after")
    def _class_tokens(self) -> "NetworkOptions":
        if self.head.tokens and self.unknown:
            raise ValueError(
                f"unknown: the classes of {self.head.name} are tokens that see each other; remove it or use another head"
            )
        return self

    @model_validator(mode="after")
    def _without_a_background_output(self) -> "NetworkOptions":
        if self.background == "learned":
            return self
        conflicts = {
            "unknown": self.unknown,
            "auxiliary": self.auxiliary is not None,
            "readout": self.readout is not None,
            "head.idrnet": self.idrnet is not None,
            f"backbone.name={ADOPTED}": isinstance(self.backbone, AdoptedOptions),
            f"head.name={self.head.name}": (self.head.hidden and self.background != "residual") or self.head.tokens,
        }
        if found := [name for name, there in conflicts.items() if there]:
            why = "has no output" if self.background != "residual" else "has no single classifier"
            raise ValueError(
                f"background: {self.background} {why} for background, which {found[0]} needs; remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _what_masks_need(self) -> "NetworkOptions":
        if not self.head.masks:
            return self
        if not isinstance(self.backbone, ViTOptions):
            raise ValueError(
                f"head: {self.head.name} needs a plain vision transformer, and backbone is {self.backbone.name}; set"
                " network.backbone=dinov2_reg_small, or another of " + ", ".join(VITS)
            )
        conflicts = {
            "unknown": self.unknown,
            "auxiliary": self.auxiliary is not None,
            "background: auxiliary": self.background == "auxiliary",
            f"decision: {self.decision}": self.decision != "softmax",
        }
        if found := [name for name, there in conflicts.items() if there]:
            raise ValueError(f"head: {self.head.name} predicts masks, which have no {found[0]}; remove one of them")
        return self

    @property
    def masks(self) -> bool:
        """Whether the network predicts masks and their classes, not a class for each pixel, as it does with a readout."""
        return self.head.masks and self.readout is None

    @property
    def has_owners(self) -> bool:
        """Whether each pixel is given to one query, see `EoMTOptions.decision`."""
        return self.masks and getattr(self.head, "decision", "einsum") != "einsum"

    @property
    def leaves_undecided(self) -> bool:
        """Whether pixels without an owner belong to no class; if background has no masks, they are background."""
        return self.has_owners and self.background != "constant"

    @property
    def adopted(self) -> bool:
        """Whether the network is one of another library."""
        return isinstance(self.backbone, AdoptedOptions)

    @property
    def idrnet(self) -> IDRNetOptions | None:
        """IDRNet over the head, or None."""
        return self.head.refinement

    @property
    def title(self) -> str:
        """The network in words, for messages.

        Example:
            >>> NetworkOptions(head="fcn").title
            'resnet101 with fcn'
        """
        if isinstance(self.backbone, AdoptedOptions):
            return self.backbone.title
        return f"{self.backbone.name} with {self.head.name}"

    @property
    def taps(self) -> tuple[str, ...]:
        """The available features.

        `stage1` ... `stage4` (sums before activation), `head`, `logits`, `pyramid` (stages 1 to 3 after activation and
        the head, at the resolution of `stage2`), those of the head, such as `aspp1` ... `aspp4` of `deeplabv3-ssul` or
        `patches` and `classes` of `mask-transformer`, and `auxiliary`, the output of the auxiliary classifier, or
        `branches` and `raw_logits` of `background: residual`.

        Example:
            >>> NetworkOptions(head="fcn").taps
            ('stage1', 'stage2', 'stage3', 'stage4', 'head', 'logits', 'pyramid')
        """
        pyramid = ("pyramid",) if self.backbone.taps and not self.head.masks else ()
        own = {"auxiliary": ("auxiliary",), "residual": RESIDUAL_TAPS}.get(self.background, ())
        of_head = () if self.head.tokens and self.readout is not None else self.head.available
        return (*self.backbone.taps, *TAPS[4:], *pyramid, *of_head, *own)

    def head_input(self, channels: list[int], widths: list[int]) -> HeadInput:
        """The input of the head's constructor.

        Args:
            channels: of the backbone's stages.
            widths: outputs of each step so far.
        """
        backbone = self.backbone
        stride = backbone.token if self.head.masks and isinstance(backbone, ViTOptions) else backbone.head_stride
        return HeadInput(channels, widths, stride, backbone.head_slope, self.unknown)

    def changed(self, **changes: Any) -> "NetworkOptions":
        """These options with some overridden, key by key, and validated.

        Example:
            >>> NetworkOptions().changed(backbone={"output_stride": 8}).backbone.stride
            8
        """
        return type(self).model_validate(laid_over(self.model_dump(), changes))


def _is_adopted(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("name") == ADOPTED


def closest_key(key: str) -> str:
    """The hint for a key that no network has: the closest one, of a part or of the whole network.

    Example:
        >>> closest_key("output_strid")
        "did you mean 'backbone.output_stride'?"
    """
    keys = {name: name for name in NetworkOptions.model_fields}
    for place, parts in (("backbone", BACKBONES), ("head", HEADS)):
        for _, options in parts.items():
            for name in options.model_fields:
                keys.setdefault(name, f"{place}.{name}")
    close = get_close_matches(key, keys, n=1, cutoff=0.8)
    return f"did you mean '{keys[close[0]]}'?" if close else did_you_mean(key, NetworkOptions.model_fields)


def laid_over(before: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Override keys of a network. If a part is replaced by another one, keys that both have are kept.

    Example:
        >>> laid_over({"head": {"width": 8, "pooling_size": 4}}, {"head": "fcn"})
        {'head': {'width': 8, 'name': 'fcn'}}
    """
    before = nested(before)
    result = dict(before)
    for key, value in nested(over, before).items():
        old = result.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            name = value.get("name")
            kept = shared_keys(BACKBONES, old, name) if key == "backbone" else old
            value = _merged(shared_keys(HEADS, old, name) if key == "head" else kept, value)
        result[key] = value
    return result


def _merged(before: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {key for key, value in over.items() if isinstance(value, Mapping) and isinstance(before.get(key), Mapping)}
    return {**before, **over, **{key: _merged(before[key], over[key]) for key in both}}


def first_widths(options: NetworkOptions, classes: int) -> list[int]:
    """Outputs before the first growth: all classes together; or unknown, background and the other classes separately, so
    that the first two can continue to learn while the classes are frozen.

    Args:
        classes: number of classes of step 0, including background.

    Example:
        >>> first_widths(NetworkOptions(), 16), first_widths(NetworkOptions(unknown=True), 16)
        ([16], [1, 1, 15])
    """
    return [1, 1, classes - 1] if options.unknown else [classes]
