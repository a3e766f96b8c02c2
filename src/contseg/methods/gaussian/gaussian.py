"""Gaussian head: linear discriminants on frozen features, learned in closed form."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from contseg.errors import ContsegError
from contseg.methods.gaussian.beside import columns_beside
from contseg.methods.gaussian.centres import background_centres
from contseg.methods.gaussian.choice import QUANTILES, RHOS, Choice, best_choice, held_out
from contseg.methods.gaussian.features import Features
from contseg.methods.gaussian.gather import CellLabel, Only, gather, labelled_cells, sums_of_confident
from contseg.methods.gaussian.readout import RHO, Prior, apply, readout
from contseg.methods.gaussian.sums import GaussianSums
from contseg.methods.method import Method, Prediction, StepContext
from contseg.models.options import NetworkOptions, ReadoutTap
from contseg.models.segmenter import Segmenter
from contseg.options import ChannelsOrNone, Count, Factor, Seed
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class Gaussian(Method):
    """A Gaussian per class with a shared covariance, on the features of a network that is frozen after step 0.

    Step 0 trains the network by plain cross-entropy; then its classifier is replaced by linear discriminants. Later steps
    (`training.epochs: [30, 0]`) only add sums, in one pass over their images and without gradients. The statistics of an
    old class do not change with later steps that do not label it. Its IoU can still fall, as new classes compete with it.

    A streaming linear discriminant analysis with a treatment of background of our own; related to SLDA (Hayes and Kanan
    2020), RanPAC (McDonnell et al. 2023) and CFSSeg (2025). `state` contains the sums, see `GaussianSums.state_dict`.
    Exemplars of a replay memory add nothing, as their sums are already included.

    Args:
        tap: the map of the network: `head`, or a stage of the backbone.
        expansion: M, dimensions of a random expansion of the map; 0 has none.
        seed: of the random expansion.
        rho: share of the mean variance added to the covariance, above 0; `auto` chooses it in every step on a fifth of the
            step's images, by the mean IoU of its classes.
        prior: `equal`, or `counts`, which adds the logarithm of a class's cells.
        covariance: `growing`: the mean over all classes so far; `frozen`: that of step 0, so that the scores of old classes
            are bit-equal after every step.
        cells: label of a cell: that of its `centre` pixel, or of at least 90 % of its pixels (`majority`).
        background: `mean`: background is a class; `distance`: it is what is far from every class, by a quantile that is
            chosen like rho.
        centres: centres of background that every step adds in place of its mean (k-means); 0 has none.
        without_sums: for a trained segmenter without stored sums and without images of step 0 (`start_from`). `confident`:
            sums from its confident predictions; `columns`: it keeps its classifier, and new columns are added.
    """

    name = "gaussian"
    learns: ClassVar[tuple[Prediction, ...]] = ("pixels", "masks")
    first_step_is_plain = True
    learns_without_updates = True
    updates_later_steps = False
    rereads = True
    new_classes_start_from = "random"

    tap: ReadoutTap = "head"
    expansion: ChannelsOrNone = 512
    seed: Seed = 0
    rho: Factor | Literal["auto"] = RHO
    prior: Prior = "equal"
    covariance: Literal["growing", "frozen"] = "growing"
    cells: CellLabel = "centre"
    background: Literal["mean", "distance"] = "mean"
    centres: Count = 0
    without_sums: Literal["confident", "columns"] = "confident"

    @property
    def taps(self) -> tuple[str, ...]:
        """The feature that the read-out reads."""
        return (self.tap,)

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """Check the hyper-parameters, and that the features stay the same when classes are added."""
        super().check(network, steps)
        if self.rho != "auto" and self.rho <= 0:
            raise ContsegError(f"method.rho: must be above 0 (got {self.rho:g})")
        if min(self.expansion, self.centres, self.seed) < 0:
            raise ContsegError("method: expansion, centres and seed must be at least 0")
        if self.centres and self.background == "distance":
            raise ContsegError("method.centres: background=distance has no centres; set method.centres=0")
        if self.without_sums == "columns" and (self.tap != "head" or self.expansion):
            raise ContsegError(
                "method.without_sums: 'columns' adds columns to a trained head; set method.tap=head and method.expansion=0"
            )
        if network.idrnet is not None and any(step.new_count for step in steps[1:]):
            raise ContsegError(
                f"method.name: '{self.name}' needs features that do not change, and the tables of network.head.idrnet grow"
                " with the classes; use another network.head"
            )

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Continue with the sums that were stored next to `start_from`."""
        if "description" in statistics:
            GaussianSums.from_state(statistics)
            self.state.update(statistics)

    def prepare(self, segmenter: Segmenter, step: Step) -> None:
        """Freeze backbone and head after step 0."""
        if step.old_count:
            segmenter.freeze("backbone", "head", norms=True)

    @torch.no_grad()
    def after_step(self, context: StepContext) -> None:
        """Add the sums of the step, and replace the classifier by their read-out."""
        if not self.reads_twice(context):
            self.learn(context)
            return
        with context.rereading(self.taps) as kept:
            self.learn(kept)

    def reads_twice(self, context: StepContext) -> bool:
        """Whether the step makes more than one pass over its images."""
        chooses = (self.rho == "auto" or self.background == "distance") and self.covariance == "growing"
        return chooses or self.centres > 0 or "description" not in self.state

    def learn(self, context: StepContext) -> None:
        """What `after_step` does, from the images of the context."""
        step, student = context.step, context.student
        before = self.sums(student.mean.device)
        if before is None and step.old_count and self.without_sums == "columns":
            self.add_columns(context)
            return
        if before is None:
            before = self.confident(context) if step.old_count else GaussianSums.empty(self.measured(context))
        if before.classes and not step.old_count:  # taken over from the segmenter
            sums, chosen = before, self.chosen_before()
        else:
            sums, chosen = self.learned(context, before)
        if self.covariance == "frozen" and sums.frozen is None:
            sums = sums.freeze()
        rho, quantile = chosen
        centres = self.more_centres(context, sums, rho) if self.centres else None
        apply(student, sums, step.table, rho=rho, prior=self.prior, quantile=quantile, centres=centres)
        self.state.clear()
        self.state.update(sums.state_dict())
        self.state["chosen"] = torch.tensor([rho, quantile or 0.0], dtype=torch.float64)
        if centres is not None:
            self.state["centres"] = centres.cpu()

    def sums(self, device: torch.device) -> GaussianSums | None:
        """The sums so far, or None."""
        return GaussianSums.from_state(self.state).to(device) if "description" in self.state else None

    def measured(self, context: StepContext) -> Features:
        """The features, from the images of the step."""
        return Features.measured(context.student, context.every_sample, self.tap, self.expansion, self.seed, context.ranks)

    def learned(self, context: StepContext, before: GaussianSums) -> tuple[GaussianSums, Choice]:
        """The sums so far and of the step, and what was chosen on its held-out images."""
        rhos = RHOS if self.rho == "auto" else (self.rho,)
        choices = [(rho, quantile) for rho in rhos for quantile in (QUANTILES if self.background == "distance" else (None,))]
        if before.frozen is not None:
            choices = [self.chosen_before()]
        if len(choices) == 1:
            return before + self.gathered(context, before, context.every_sample), choices[0]
        fit = Only(context.every_sample, lambda name: not held_out(name))
        held = Only(context.every_sample, held_out)
        sums = before + self.gathered(context, before, fit)
        cells = labelled_cells(context.student, held, before.features, self.cells)
        chosen = best_choice(cells, sums, context.step, choices, self.prior, context.ranks)
        return sums + self.gathered(context, before, held), chosen

    def gathered(self, context: StepContext, before: GaussianSums, batches: Iterable[Batch]) -> GaussianSums:
        """The sums of some images of a step."""
        table, new = context.step.table, max(context.step.old_count, int(context.step.table.has_background))
        return gather(
            context.student,
            batches,
            table,
            before.features,
            learned=table.names[new:],
            cells=self.cells,
            scatter=before.frozen is None,
            ranks=context.ranks,
        )

    def chosen_before(self) -> Choice:
        """What an earlier step chose, or the defaults."""
        rho, quantile = self.state["chosen"].tolist() if "chosen" in self.state else (0.0, 0.0)
        default = QUANTILES[0] if self.background == "distance" else None
        return rho or (RHO if self.rho == "auto" else self.rho), quantile or default

    def more_centres(self, context: StepContext, sums: GaussianSums, rho: float) -> Tensor | None:
        """The centres of background so far and those of the step."""
        claimed = readout(sums, context.step.table, rho=rho, prior=self.prior)
        cells = labelled_cells(context.student, context.every_sample, sums.features, self.cells)
        found = background_centres(cells, claimed, self.centres, self.seed + context.step.index, context.ranks)
        centres = torch.cat([self.state["centres"].to(found), found]) if "centres" in self.state else found
        return centres if len(centres) else None

    def confident(self, context: StepContext) -> GaussianSums:
        """The sums of the old classes from confident predictions of a segmenter without sums."""
        old = context.step.table.subset(context.step.old_classes)
        return sums_of_confident(
            context.student, context.every_sample, old, self.measured(context), cells=self.cells, ranks=context.ranks
        )

    def add_columns(self, context: StepContext) -> None:
        """Set the classifiers of the new classes next to those of a segmenter without sums."""
        features = self.measured(context)
        rho = RHO if self.rho == "auto" else self.rho
        columns_beside(
            context.student,
            context.every_sample,
            context.step.table,
            features,
            rho=rho,
            cells=self.cells,
            ranks=context.ranks,
        )
