"""A segmenter: backbone, head, growing classifier."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from contseg.errors import ContsegError
from contseg.models.auxiliary import AuxiliaryHead
from contseg.models.backbones import hold, is_norm, make_backbone
from contseg.models.classifier import GrowingClassifier, Start
from contseg.models.heads.deeplabv3 import DeepLabV3
from contseg.models.heads.deeplabv3_mib import DeepLabV3MiB
from contseg.models.heads.deeplabv3_ssul import DeepLabV3SSUL
from contseg.models.heads.fcn import FCN
from contseg.models.heads.head import Head
from contseg.models.heads.pspnet import PSPNet
from contseg.models.heads.upernet import UperNet
from contseg.models.idrnet.network import IDRNet, Passed
from contseg.models.initialisation import initialise_convolutions
from contseg.models.layers import resize
from contseg.models.options import NetworkOptions

STAGES = ("stage1", "stage2", "stage3", "stage4")
TAPS = (*STAGES, "head", "logits")
ASPP_TAPS = ("aspp1", "aspp2", "aspp3", "aspp4")
STAGE1_WEIGHT = 0.4


@dataclass
class SegmenterOutput:
    """What a segmenter says of a batch.

    Args:
        logits: (B, K, h, w), at feature resolution.
        features: the requested taps, by name.
        auxiliary: the auxiliary outputs; in training only.
        passed: what IDRNet left for `Segmenter.observe`; in training only.
    """

    logits: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    auxiliary: list["AuxiliaryOutput"] = field(default_factory=list)
    passed: Passed | None = None
    _resized: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False, repr=False)

    def logits_at(self, size: tuple[int, int]) -> Tensor:
        """Logits bilinearly resized to (H, W), in float32 or better; computed once however many terms ask."""
        if size not in self._resized:
            self._resized[size] = resize(self.logits, size)
        return self._resized[size]


@dataclass
class AuxiliaryOutput(SegmenterOutput):
    """An output that only training has.

    Args:
        name: of its term, `auxiliary_NAME`.
        weight: of its supervised term.
    """

    name: str = ""
    weight: float = 1.0


class Segmenter(nn.Module):
    """Images to logits, growing with the classes.

    Args:
        options: the network.
        widths: outputs of each step so far, see `first_widths`.

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
        self.backbone = make_backbone(options)
        channels = self.backbone.channels
        self.head = make_head(options, channels, list(widths))
        hidden = options.head == "deeplabv3-ssul"
        self.classifier = GrowingClassifier(self.head.width, list(widths), options.unknown, hidden)
        self.auxiliary = (
            AuxiliaryHead(channels[2], options.auxiliary_width, list(widths), options.dropout, options.unknown)
            if options.auxiliary
            else None
        )
        self.register_buffer("mean", torch.tensor(options.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(options.std).view(1, 3, 1, 1), persistent=False)
        self._held: frozenset[str] = frozenset()
        self._norms_held = False
        self.backbone.initialise()
        if isinstance(self.head, (DeepLabV3MiB, DeepLabV3SSUL)):
            self.head.initialise(options.head_initialisation)
        elif options.head_initialisation is not None:
            initialise_convolutions(self.head, options.head_initialisation)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Segmenter":
        """Training or evaluation mode. For training, what `options.freeze` names stops learning (see `backbones.hold`), and
        so does what a method holds (see `hold`)."""
        super().train(mode)
        if mode:
            used = {*self.head.uses, *([2] if self.auxiliary is not None else [])}
            hold(self.backbone, self.options.freeze, used)
            for name, parameter in self.named_parameters():
                if name in self._held:
                    parameter.requires_grad_(False)
            if self._norms_held:
                for module in self.modules():
                    if is_norm(module):
                        module.requires_grad_(False)
                        module.eval()
        return self

    def hold(self, *parts: str, norms: bool = False) -> None:
        """Make parts stop learning until `hold` is called again; for `Method.prepare`.

        Args:
            parts: dotted names of modules, such as `backbone`, `head` or `classifier.steps.0`. Dropout in them stays active.
            norms: every norm of the segmenter keeps its statistics and its gains.

        Example:
            >>> segmenter = Segmenter(NetworkOptions(backbone="resnet18", width=8, head_width=16), [3])
            >>> segmenter.hold("backbone", "head", norms=True)
            >>> [name for name, parameter in segmenter.named_parameters() if parameter.requires_grad]
            ['classifier.steps.0.weight', 'classifier.steps.0.bias']
        """
        below = tuple(f"{part}." for part in parts)
        self._hold({name for name, _ in self.named_parameters() if name.startswith(below)}, norms)

    def _hold(self, names: set[str], norms: bool) -> None:
        self._held, self._norms_held = frozenset(names), norms
        self.requires_grad_(True)
        self.train(self.training)

    def hold_all_but(self, *steps: int) -> None:
        """Hold everything, norms too, but these steps of every classifier that grows (the last, the auxiliary, stage 1's).

        Args:
            steps: positions among a classifier's steps; -1 is the newest.

        Example:
            >>> segmenter = Segmenter(NetworkOptions(backbone="resnet18", width=8, head_width=16), [3, 1])
            >>> segmenter.hold_all_but(-1)
            >>> [name for name, parameter in segmenter.named_parameters() if parameter.requires_grad]
            ['classifier.steps.1.weight', 'classifier.steps.1.bias']
        """
        learning = {
            id(parameter)
            for module in self.modules()
            if isinstance(module, GrowingClassifier)
            for step in steps
            for parameter in module.steps[step].parameters()
        }
        self._hold({name for name, parameter in self.named_parameters() if id(parameter) not in learning}, norms=True)

    def rest(self, taps: Sequence[str]) -> None:
        """Make those parts stop learning that no loss reads when only these taps are asked for: under the head of SSUL, the
        pyramids that are only distilled. Ranks would wait for their gradients for ever."""
        if isinstance(self.head, DeepLabV3SSUL):
            for tap, pyramid in zip(ASPP_TAPS, self.head.dense, strict=False):
                if tap not in taps:
                    pyramid.requires_grad_(False)

    def forward(self, images_BCHW: Tensor, taps: Sequence[str] = ()) -> SegmenterOutput:
        """Logits, and the features asked for.

        Args:
            images_BCHW: normalised images, see `normalise`.
            taps: any of `self.taps`.

        Raises:
            ContsegError: a tap that this network lacks.
        """
        unknown = [tap for tap in taps if tap not in self.taps]
        if unknown:
            has = ", ".join(self.taps)
            raise ContsegError(f"tap '{unknown[0]}': {self.options.backbone} with {self.options.head} has {has}")
        stages = self.backbone(images_BCHW)
        maps = [self.backbone.activate(stages[stage]) for stage in self.head.uses]
        passed = None
        if isinstance(self.head, IDRNet):
            decoded, passed = self.head(maps)
        else:
            decoded = self.head(maps)
        logits = self.classifier(decoded)
        tapped = dict(zip(TAPS, [*stages, decoded, logits], strict=True)) | {"aspp4": decoded}
        if isinstance(self.head, DeepLabV3SSUL):
            for tap, stage, pyramid in zip(ASPP_TAPS, stages, self.head.dense, strict=False):
                if tap in taps:
                    tapped[tap] = pyramid(self.backbone.activate(stage))
        output = SegmenterOutput(logits, {tap: tapped[tap] for tap in taps})
        if self.training:
            output.passed = passed
            if passed is not None:
                output.auxiliary.append(AuxiliaryOutput(passed.stage1, name="stage1", weight=STAGE1_WEIGHT))
            if self.auxiliary is not None:
                third = self.auxiliary(self.backbone.activate(stages[2]))
                output.auxiliary.append(AuxiliaryOutput(third, name="stage3", weight=self.auxiliary.weight))
        return output

    def normalise(self, images_BCHW: Tensor) -> Tensor:
        """uint8 RGB (B, 3, H, W) to what `forward` takes, on the images' device."""
        return (images_BCHW.to(self.mean.dtype) / 255 - self.mean) / self.std

    @property
    def taps(self) -> tuple[str, ...]:
        """The features that `forward` can give: `stage1` ... `stage4` (sums before activation), `head`, `logits`, and with
        the head of SSUL `aspp1` ... `aspp4`."""
        return taps_of(self.options)

    @property
    def widths(self) -> list[int]:
        """Outputs of each step so far."""
        return self.classifier.widths

    def grow(self, count: int, start: Start = "background") -> None:
        """Add `count` classes to everything sized by classes: classifiers (`GrowingClassifier.grow`) and IDRNet's tables."""
        self.classifier.grow(count, start)
        if self.auxiliary is not None:
            self.auxiliary.grow(count, start)
        if isinstance(self.head, IDRNet):
            self.head.grow(count, start)

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
        """After the losses of every iteration, with the method's final labels: IDRNet deletes a class and learns from it."""
        if isinstance(self.head, IDRNet) and output.passed is not None:
            self.head.observe(output.passed, self.classifier, output.logits, labels_BHW, context)


def taps_of(options: NetworkOptions) -> tuple[str, ...]:
    """The taps of a network, see `Segmenter.taps`.

    Example:
        >>> taps_of(NetworkOptions(head="fcn"))
        ('stage1', 'stage2', 'stage3', 'stage4', 'head', 'logits')
    """
    return (*TAPS, *ASPP_TAPS) if options.head == "deeplabv3-ssul" else TAPS


def first_widths(options: NetworkOptions, classes: int) -> list[int]:
    """Outputs before the first growth: all classes together; or unknown and background on their own, then the others, so
    that those two can go on learning where the classes are frozen.

    Args:
        classes: of step 0, background among them.

    Example:
        >>> first_widths(NetworkOptions(), 16), first_widths(NetworkOptions(unknown=True), 16)
        ([16], [1, 1, 15])
    """
    return [1, 1, classes - 1] if options.unknown else [classes]


def make_head(options: NetworkOptions, channels: list[int], widths: list[int]) -> Head | IDRNet:
    """The head that the options name, over a backbone with these channels."""
    if options.idrnet is not None:
        return IDRNet(
            channels,
            widths,
            options.idrnet,
            options.head,
            options.head_width,
            options.fpn_width,
            options.atrous_rates,
            options.dropout,
            options.unknown,
        )
    if options.head == "fcn":
        return FCN(channels, options.head_width, options.dropout)
    if options.head == "pspnet":
        return PSPNet(channels, options.head_width, options.dropout)
    if options.head == "upernet":
        return UperNet(channels, options.head_width, options.fpn_width, options.dropout)
    if options.head == "deeplabv3":
        return DeepLabV3(channels, options.head_width, options.atrous_rates, options.dropout)
    if options.head == "deeplabv3-ssul":
        return DeepLabV3SSUL(channels, options.head_width, options.output_stride, options.dropout)
    slope = options.slope if options.head_slope is None else options.head_slope
    return DeepLabV3MiB(channels, options.head_width, options.output_stride, slope, options.pooling_size)
