"""A segmenter: backbone, head, growing classifier."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from contseg.errors import ContsegError
from contseg.models.auxiliary import AuxiliaryHead
from contseg.models.backbones.backbone import Backbone
from contseg.models.classifier import GrowingClassifier, Start
from contseg.models.decision import class_scores
from contseg.models.foreground import ForegroundClassifier
from contseg.models.freezing import (
    freeze_parameters,
    parameters_below,
    parameters_except,
    parameters_of_old_classes,
)
from contseg.models.from_features import FromFeatures
from contseg.models.layers import pyramid, resize
from contseg.models.names import STAGES, Decision
from contseg.models.options import TAPS, NetworkOptions, ReadoutOptions, ReadoutTap
from contseg.models.output import AuxiliaryOutput, SegmenterOutput
from contseg.models.readout import ReadoutClassifier
from contseg.models.residual import ResidualClassifier
from contseg.ranks import Ranks


def _activated(backbone: Backbone, stages: Sequence[Tensor], stage: int) -> Tensor:
    """The activated map of a stage, computed on demand."""
    return backbone.activate(stages[stage])


class Segmenter(nn.Module):
    """A network from images to logits that grows with the classes.

    Args:
        options: options of the network.
        widths: outputs of each step so far, see `first_widths`.
        backbone: the backbone; default: made from the options.

    Example:
        >>> segmenter = Segmenter(NetworkOptions(backbone={"name": "resnet18", "width": 8, "output_stride": 8}), [3])
        >>> segmenter.grow(1, "background")
        >>> output = segmenter(torch.zeros(2, 3, 64, 64), taps=("stage4",))
        >>> output.logits.shape, output.features["stage4"].shape, output.logits_at((64, 64)).shape
        (torch.Size([2, 4, 8, 8]), torch.Size([2, 64, 8, 8]), torch.Size([2, 4, 64, 64]))
    """

    mean: Tensor
    std: Tensor

    def __init__(self, options: NetworkOptions, widths: Sequence[int], backbone: Backbone | None = None):
        super().__init__()
        self.options = options
        self.backbone = options.backbone.make() if backbone is None else backbone
        channels = self.backbone.channels
        self.head = options.head.make(options.head_input(channels, list(widths)))
        self.classifier = self._classifier(list(widths))
        self.auxiliary = (
            AuxiliaryHead(channels[2], options.auxiliary.width, list(widths), options.auxiliary.dropout, options.unknown)
            if options.auxiliary is not None
            else None
        )
        self.register_buffer("mean", torch.tensor(options.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(options.std).view(1, 3, 1, 1), persistent=False)
        self._frozen: frozenset[str] = frozenset()
        self._norms_frozen = self._dropout_frozen = False
        self.backbone.initialise()
        self.head.initialise(options.head.initialisation)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Segmenter":
        """Set training or evaluation mode. In training mode, parts frozen by the options or by a method stay frozen."""
        super().train(mode)
        if mode:
            used = {*self.head.uses, *([2] if self.auxiliary is not None else [])}
            self.backbone.freeze(self.options.backbone.freeze, used)
            freeze_parameters(self, self._frozen, self._norms_frozen, self._dropout_frozen)
        return self

    def freeze(self, *parts: str, norms: bool = False, dropout: bool = False) -> None:
        """Freeze parts until `freeze` is called again; for `Method.prepare`.

        Args:
            parts: dotted names of modules, such as `backbone`, `head` or `classifier.steps.0`. Dropout in them stays active.
            norms: freeze the statistics and gains of every norm of the segmenter.
            dropout: switch off every dropout of the segmenter.

        Example:
            >>> segmenter = Segmenter(NetworkOptions(backbone="resnet18"), [3])
            >>> segmenter.freeze("backbone", "head", norms=True)
            >>> [name for name, parameter in segmenter.named_parameters() if parameter.requires_grad]
            ['classifier.steps.0.weight', 'classifier.steps.0.bias']
        """
        self._freeze(parameters_below(self, parts), norms, dropout)

    def freeze_all_but(self, *steps: int, dropout: bool = False) -> None:
        """Freeze everything, including norms, except these steps of every growing classifier (final, auxiliary, stage 1).

        Convolutions that are reserved for later steps are not frozen.

        Args:
            steps: positions among a classifier's steps; -1 is the newest.
            dropout: switch off every dropout too.

        Example:
            >>> segmenter = Segmenter(NetworkOptions(backbone="resnet18"), [3, 1])
            >>> segmenter.freeze_all_but(-1)
            >>> [name for name, parameter in segmenter.named_parameters() if parameter.requires_grad]
            ['classifier.steps.1.weight', 'classifier.steps.1.bias']
        """
        self._freeze(parameters_except(self, steps), norms=True, dropout=dropout)

    def freeze_old_classifiers(self) -> None:
        """Freeze every step of every growing classifier except the newest, in addition to what is frozen.

        Example:
            >>> segmenter = Segmenter(NetworkOptions(backbone="resnet18"), [3, 1])
            >>> segmenter.freeze("backbone", "head")
            >>> segmenter.freeze_old_classifiers()
            >>> [name for name, parameter in segmenter.named_parameters() if parameter.requires_grad]
            ['classifier.steps.1.weight', 'classifier.steps.1.bias']
        """
        self._freeze({*self._frozen, *parameters_of_old_classes(self)}, self._norms_frozen, self._dropout_frozen)

    def _freeze(self, names: set[str], norms: bool, dropout: bool = False) -> None:
        self._frozen, self._norms_frozen, self._dropout_frozen = frozenset(names), norms, dropout
        self.requires_grad_(True)
        self.train(self.training)

    def freeze_unused(self, taps: Sequence[str]) -> None:
        """Freeze what no loss reads when only these taps are computed, see `Head.freeze_unused`."""
        self.head.freeze_unused(taps)
        self.classifier.freeze_unused(taps)

    def forward(
        self, images_BCHW: Tensor | None, taps: Sequence[str] = (), start: FromFeatures | None = None
    ) -> SegmenterOutput:
        """Logits, at the resolution of the features or, where the backbone had to pad images, at theirs; and requested taps.

        Args:
            images_BCHW: normalised images, see `normalise`; None with `start`.
            taps: any of `self.taps`.
            start: features to start from; nothing below them is computed.

        Raises:
            ContsegError: this network lacks a requested tap.
        """
        self._require(taps)
        given = {} if start is None else start.features
        stages: list[Any] = self.backbone(images_BCHW) if start is None else [given.get(stage) for stage in STAGES]
        activated = partial(_activated, self.backbone, stages)
        decoded, passed = self._decoded(stages, activated, given)
        feature = partial(self._feature, stages=stages, decoded_BCHW=decoded, activated=activated, given=given)
        logits, own = self.classifier.run(read := feature(self.classifier_tap), taps)
        features = {self.classifier_tap: read, "logits": self._of_image(logits, images_BCHW, start), **own}
        found = {tap: features[tap] if tap in features else feature(tap) for tap in taps}
        output = SegmenterOutput(features["logits"], found)
        if self.training:
            output.passed = passed
            output.auxiliary = [*self.head.auxiliary(passed), *self._third_stage(activated, given)]
        return output

    def _of_image(self, logits_BKHW: Tensor, images_BCHW: Tensor | None, start: FromFeatures | None) -> Tensor:
        """The logits of a padded image at the full size of the image, so that resizing keeps pixels in their places."""
        size = None if start is None else start.size
        if images_BCHW is not None:
            size = (images_BCHW.shape[2], images_BCHW.shape[3])
        if size is None or (covered := self.backbone.covered(size)) is size:
            return logits_BKHW
        if not torch.compiler.is_exporting() and covered == size:  # a program for any size has no such case
            return logits_BKHW
        return resize(logits_BKHW, covered)[:, :, : size[0], : size[1]]

    def _third_stage(self, activated: Callable[[int], Tensor], given: Mapping[str, Tensor]) -> list[AuxiliaryOutput]:
        """The output of the auxiliary head, if there is one."""
        if self.auxiliary is None:
            return []
        kept = given.get("auxiliary")
        logits = self.auxiliary(activated(2)) if kept is None else self.auxiliary.classify(kept)
        return [AuxiliaryOutput(logits, name="stage3", weight=self.auxiliary.weight)]

    @torch.no_grad()
    def features_at(self, images_BCHW: Tensor, points: Sequence[str]) -> dict[str, Tensor]:
        """What a forward pass in the present mode computes at some points, see `FromFeatures`."""
        stages = self.backbone(images_BCHW)
        activated = partial(_activated, self.backbone, stages)
        found: dict[str, Tensor] = {}
        for point in points:
            if point in STAGES:
                found[point] = stages[STAGES.index(point)]
            elif point == "head":
                found[point] = self.head.undropped([activated(stage) for stage in self.head.uses])
            elif point == "auxiliary":
                assert self.auxiliary is not None
                found[point] = self.auxiliary.convolution(activated(2))
            else:
                found[point] = self.head.undropped_tap(point, activated)
        return found

    def _decoded(
        self, stages: Sequence[Any], activated: Callable[[int], Tensor], given: Mapping[str, Tensor]
    ) -> tuple[Any, Any]:
        """The result of the head and what it passes on; None from a start that needs neither."""
        if "head" in given:
            return self.head.drop(given["head"]), None
        if any(stages[stage] is None for stage in self.head.uses):
            return None, None
        return self.head.run([activated(stage) for stage in self.head.uses])

    def _feature(
        self,
        tap: str,
        stages: Sequence[Tensor],
        decoded_BCHW: Tensor,
        activated: Callable[[int], Tensor],
        given: Mapping[str, Tensor],
    ) -> Tensor:
        """The feature of a tap other than `logits`."""
        if tap in given and tap in self.head.taps:
            return self.head.drop(given[tap], tap)
        if tap in TAPS:
            return [*stages, decoded_BCHW][TAPS.index(tap)]
        if tap == "pyramid":
            return pyramid([*map(activated, range(3)), decoded_BCHW])
        return self.head.tap(tap, activated, decoded_BCHW)

    def _require(self, taps: Sequence[str]) -> None:
        unknown = [tap for tap in taps if tap not in self.taps]
        if unknown:
            raise ContsegError(f"tap '{unknown[0]}': {self.options.title} has {', '.join(self.taps)}")

    def normalise(self, images_BCHW: Tensor) -> Tensor:
        """Normalise uint8 RGB (B, 3, H, W) for `forward`, on the images' device."""
        return (images_BCHW.to(self.mean.dtype) / 255 - self.mean) / self.std

    @property
    def taps(self) -> tuple[str, ...]:
        """The available features, see `NetworkOptions.taps`."""
        return self.options.taps

    def channels_of(self, tap: ReadoutTap) -> int:
        """Channels of a feature that a classifier can read."""
        if tap == "head":
            return self.head.width
        return sum(self.pyramid_channels) if tap == "pyramid" else self.backbone.channels[TAPS.index(tap)]

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        """Channels of the maps in the tap `pyramid`: stages 1 to 3 and the head."""
        return (*self.backbone.channels[:3], self.head.width)

    @property
    def classifier_tap(self) -> ReadoutTap:
        """The tap of the feature that the classifier reads."""
        return "head" if self.options.readout is None else self.options.readout.tap

    @property
    def widths(self) -> list[int]:
        """Outputs of each step so far."""
        return self.classifier.widths

    def grow(self, count: int, start: Start = "background") -> None:
        """Add `count` classes to all classifiers (`GrowingClassifier.grow`) and to IDRNet's tables."""
        self.classifier.grow(count, start)
        start = "random" if start == "reserved" else start  # others have none
        if self.auxiliary is not None:
            self.auxiliary.grow(count, start)
        self.head.grow(count, start)

    def reserve(self, widths: Sequence[int]) -> None:
        """Make the final classifiers of all later steps now, see `GrowingClassifier.reserve`; `[]` drops them."""
        self.classifier.reserve(widths)

    def anneal(self, step: int, update: int, updates: int) -> None:
        """Called before each update, and after it with the next number; for networks that compute differently over time.

        Args:
            step: index of the step.
            update: number of finished updates of the step.
            updates: number of all updates of the step.
        """

    def use_readout(self, readout: ReadoutOptions, decision: Decision = "softmax") -> None:
        """Replace the classifier by one with computed weights, which are still zero, with the same outputs.

        It has a background, so the background becomes `learned`.

        Args:
            decision: the decision rule from then on; by default scores compete.
        """
        changes = {"readout": readout, "decision": decision, "background": "learned"}
        self.options = self.options.model_copy(update=changes)
        self.classifier = self._classifier(self.widths).to(self.mean)

    def _classifier(self, widths: list[int]) -> GrowingClassifier:
        options, readout = self.options, self.options.readout
        if options.background == "residual":
            return ResidualClassifier(self.head.width, widths)
        if options.background != "learned":
            return ForegroundClassifier(self.head.width, widths, options.background == "auxiliary")
        if readout is None:
            return options.head.make_classifier(self.head.width, widths, options.unknown)
        return ReadoutClassifier(self.channels_of(readout.tap), widths, readout)

    def scores(self, logits_BKHW: Tensor) -> Tensor:
        """Scores of the classes, (B, K, H, W); the prediction is their arg max.

        The score of an unknown output is added to background's.
        """
        return class_scores(logits_BKHW, self.options.decision, self.options.unknown)

    @torch.no_grad()
    def observe(self, output: SegmenterOutput, labels_BHW: Tensor, ranks: Ranks, generator: torch.Generator) -> None:
        """Let the head learn from an iteration's output and final labels, after the losses; used by IDRNet.

        Args:
            ranks, generator: as of `StepContext`.
        """
        if output.passed is not None:
            self.head.observe(output.passed, self.classifier, output.logits, labels_BHW, ranks, generator)
