"""CFSSeg: closed-form ridge regression on a random expansion of frozen features (ACM MM 2025)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from contseg.errors import ContsegError
from contseg.losses.cross_entropy import sigmoid_cross_entropy
from contseg.losses.features import nearest
from contseg.methods.gaussian.gather import cells_of
from contseg.methods.gaussian.random_features import Draw, RandomFeatures
from contseg.methods.gaussian.readout import Readout, install
from contseg.methods.gaussian.ridge import RidgeSums, description_of
from contseg.methods.method import Method, StepContext
from contseg.methods.pseudo_labels import fill_in
from contseg.models.options import NetworkOptions
from contseg.models.pixelwise import per_pixel
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.options import ChannelsOrNone, Factor, Seed, Share
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class CFSSeg(Method):
    """A linear classifier on frozen, randomly expanded features, solved as a ridge regression over all cells so far.

    Step 0 trains the network by binary cross-entropy per output; then its classifier is replaced by the solution. Later
    steps (`training.epochs: [30, 0]`) add their sums in one pass over their images, without augmentation and without
    gradients, and solve again. A column that appears later starts at 0, as if it had had target 0 in all cells so far; an
    unlabelled cell of a class that comes later is a negative of it for ever.

    Scores are decided by a sigmoid per output, of whatever decision the network had in step 0; both have the same arg max.

    `state` contains the sums, see `RidgeSums.state_dict`. Exemplars of a replay memory add nothing, as their sums are
    already included.

    Args:
        expansion: M, dimensions of the random expansion; 0 has none.
        gamma: the ridge; it only means something together with the scale of the expansion.
        draw: distribution of the expansion, see `RandomFeatures`.
        seed: of the expansion.
        threshold: in later steps background becomes the old class whose score (sigmoid) is at least this; none has no
            pseudo-labels.
        weighting: `pixels`: every cell has the same weight; `class-balanced`: every class has. The latter keeps a matrix per
            class, as old classes get more cells by pseudo-labels.
    """

    expansion: ChannelsOrNone = 8192
    gamma: Factor = 1.0
    draw: Draw = "normal"
    seed: Seed = 0
    threshold: Share | None = 0.6
    weighting: Literal["pixels", "class-balanced"] = "pixels"

    name = "cfsseg"
    learns_without_updates = True
    updates_later_steps = False

    first_pseudo_step: ClassVar[int] = 1
    """The first step with pseudo-labels."""
    column_deviation: ClassVar[float] = 0.0
    """Deviation of the random numbers at which new columns start."""

    def first_step_key(self) -> dict[str, Any]:
        """Binary cross-entropy per output, as SSUL's step 0 on its own network."""
        return {"supervised": "sigmoid"}

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """Check that the features stay the same when classes are added, and that the hyper-parameters fit."""
        super().check(network, steps)
        if network.idrnet is not None and any(step.new_count for step in steps[1:]):
            raise ContsegError(
                f"method.name: '{self.name}' needs features that do not change, and the tables of network.head.idrnet grow"
                " with the classes; use another network.head"
            )
        if self.weighting == "class-balanced" and self.column_deviation:
            raise ContsegError(
                "method.weighting: the released start of new columns has no class-balanced form; set method.variant=paper"
            )

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Continue with the sums that were stored next to `start_from`."""
        if "ridge" in statistics:
            RidgeSums.from_state(statistics)
            self.state.update(statistics)

    def prepare(self, segmenter: Segmenter, step: Step) -> None:
        """Freeze backbone and head after step 0."""
        if step.old_count:
            segmenter.freeze("backbone", "head", norms=True)

    def supervise(self, output: SegmenterOutput, batch: Batch, context: StepContext) -> Tensor:
        """Binary cross-entropy summed over outputs, mean over the valid pixels of all ranks."""
        loss = per_pixel(sigmoid_cross_entropy, batch.size, output, batch.labels)
        return context.mean_over_valid(loss, batch.labels)

    def before_step(self, context: StepContext) -> None:
        """Check that the sums so far are those of the old classes."""
        self.require_sums(context)

    @torch.no_grad()
    def after_step(self, context: StepContext) -> None:
        """Add the sums of the step, and replace the classifier by the solution."""
        step, student = context.step, context.student
        sums = self.sums(context)
        if step.old_count or not sums.classes:  # sums of a given segmenter already contain step 0
            sums = self.learned(context, sums)
        weight = sums.weight(self.gamma)
        none = weight[:0]
        found = Readout(weight, weight.new_zeros(len(weight)), none, weight.new_zeros(0))
        install(student, sums.features, found, decision="sigmoid")
        self.state.clear()
        self.state.update(sums.state_dict())

    def learned(self, context: StepContext, before: RidgeSums) -> RidgeSums:
        """The sums so far and of the step."""
        new = context.step.table.names[len(before.classes) :]
        sums = before.grown(new, self.first_columns(context, len(new), before.features.width), self.gamma)
        sums = sums.share(context.ranks)

        def labels(batch: Batch, output: SegmenterOutput, size: tuple[int, int]) -> Tensor:
            return nearest(self.pseudo_labelled(batch, output, context.step).labels, size)

        for g_ND, labels_N in cells_of(context.student, context.every_sample, sums.features.tap, labels):
            sums.add(g_ND, labels_N)
        return sums.over_ranks(context.ranks)

    def pseudo_labelled(self, batch: Batch, output: SegmenterOutput, step: Step) -> Batch:
        """The batch in which background is the best old class where its score is at least the threshold.

        Args:
            output: of the solution before the step.
        """
        if self.threshold is None or not step.old_count or step.index < self.first_pseudo_step:
            return batch
        scores = SegmenterOutput(output.logits[:, : step.old_count].sigmoid())
        score, predicted = per_pixel(lambda scores_BOHW: tuple(scores_BOHW.max(dim=1)), batch.size, scores)
        return fill_in(batch, predicted, score >= self.threshold, step.foreground)

    def first_columns(self, context: StepContext, count: int, width: int) -> Tensor | None:
        """Where new columns start, (count, width); None is 0."""
        if not self.column_deviation:
            return None
        generator = torch.Generator().manual_seed(self.seed + 1 + context.step.index)
        return self.column_deviation * torch.randn(count, width, generator=generator, dtype=torch.float64)

    def sums(self, context: StepContext) -> RidgeSums:
        """The sums so far, on the student's device. Errors are those of `require_sums`."""
        self.require_sums(context)
        device = context.student.mean.device
        if "ridge" in self.state:
            return RidgeSums.from_state(self.state).to(device)
        return RidgeSums.empty(self.features(context), self.weighting == "class-balanced").to(device)

    def features(self, context: StepContext) -> RandomFeatures:
        """The expansion of the student's map."""
        return RandomFeatures.drawn("head", context.student.channels_of("head"), self.expansion, self.seed, self.draw)

    def require_sums(self, context: StepContext) -> None:
        """Raise an error if a step cannot continue with the sums so far.

        Raises:
            ContsegError: there are none in a later step, or they are those of other classes, or of another expansion.
        """
        step = context.step
        if "ridge" not in self.state:
            if step.old_count:
                raise ContsegError(
                    f"method.name: '{self.name}' adds to the sums of earlier steps, and there are none; begin with step 0,"
                    " or set start_from to a folder that save_pretrained wrote with the statistics of this method"
                )
            return
        features, classes, balanced = description_of(self.state)
        expected = step.table.names[: step.old_count] if step.old_count else step.table.names
        if classes != tuple(expected):
            raise ContsegError(
                f"statistics of CFSSeg: another class order ({_difference(classes, expected)}); use the order and the split"
                " that they were made with"
            )
        if not features.same_as(self.features(context)) or balanced != (self.weighting == "class-balanced"):
            own: dict[str, Any] = {"expansion": features.expansion, "seed": features.seed, "draw": features.draw}
            own["weighting"] = "class-balanced" if balanced else "pixels"
            differs = [f"method.{key}={value}" for key, value in own.items() if value != getattr(self, key)]
            raise ContsegError(
                f"statistics of CFSSeg: made with {' '.join(differs) or 'a map of another width'}; use the same,"
                " or begin again"
            )


def _difference(classes: Sequence[str], expected: Sequence[str]) -> str:
    """Where two orders of classes differ, in words."""
    for place, (own, other) in enumerate(zip(classes, expected, strict=False)):
        if own != other:
            return f"has '{own}' as class {place}, which is '{other}' here"
    return f"has {len(classes)} classes, and {len(expected)} are old"
