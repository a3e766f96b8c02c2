"""STAR: Saving Task-specific knowledge with feature replay (Chen et al., NeurIPS 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from contseg.data.classes import IGNORE
from contseg.errors import ContsegError
from contseg.losses.one_vs_rest import decided
from contseg.losses.replay import direction_sums, fake_features, masked_distance, prototype_contrast, sampled
from contseg.methods.feature_statistics import ClassSums, ReplaySizes, replay_sizes
from contseg.methods.method import StepContext
from contseg.methods.one_vs_rest import OneVsRest
from contseg.models.layers import resize
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.options import Weight
from contseg.precision import precise
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class STAR(OneVsRest):
    """Replay of drawn features of old classes against new classifiers; old regions keep their features.

    Of each class a direction, its deviation, and mean and deviation of the norm are stored after its step. In later steps,
    features are drawn from them, as many as the class has positions that the images of the step lack, and are negatives of
    the new classes. So are features that the teacher decides to be background, with a weight. Nothing distils logits.

    STAR-M is this method with a replay memory (`scenario.memory`).

    Args:
        features: weight of the distance to the teacher's features where it sees an old class in unlabelled pixels.
        contrast: weight of the inverse distance of new classes from old prototypes.
        new_factor: factor of the learning rate for the classifiers of new classes.
        setting: of the scenario; `disjoint` replays every old class as often as it was seen.

    A term with weight 0 is omitted.
    """

    positive_weight_first: Weight = 4.0
    positive_weight: Weight = 4.0
    features: Weight = 5.0
    contrast: Weight = 0.05
    new_factor: Weight = 10.0
    setting: Literal["overlapped", "disjoint"] = "overlapped"

    name = "star"
    backgrounds = ("constant",)
    taps = ("head",)
    whole_batch_terms = ("binary", "features", "contrast")

    statistics: ClassVar[tuple[str, ...]] = ("classes", "numbers", "prototypes", "norms", "noise")
    """What is stored after a step: dataset ids of the classes, and the statistics of each; numbers have background first."""
    threshold: ClassVar[float] = 0.0
    """Logit above which the teacher sees a class."""
    epsilon: ClassVar[float] = 0.0
    """Added to the divisor of the distance of features."""

    def first_step_key(self) -> dict[str, Any]:
        """Binary cross-entropy alone; STAR and Adapter share it."""
        return {"supervised": "one_vs_rest", "variant": self.variant, "positive_weight": self.positive_weight_first}

    def parameter_groups(self, segmenter: Segmenter, step: Step) -> list[dict[str, Any]]:
        """In later steps, a larger learning rate for the new classifiers."""
        if not step.old_count:
            return super().parameter_groups(segmenter, step)
        new = {id(parameter) for parameter in segmenter.classifier.steps[-1].parameters()}
        learning = [parameter for parameter in segmenter.parameters() if parameter.requires_grad]
        return [
            {"params": [parameter for parameter in learning if id(parameter) not in new], "lr_factor": 1.0},
            {"params": [parameter for parameter in learning if id(parameter) in new], "lr_factor": self.new_factor},
        ]

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Use the statistics that a run with this method stored."""
        if all(name in statistics for name in self.statistics):
            self.state.update({name: statistics[name] for name in self.statistics})

    @torch.no_grad()
    def before_step(self, context: StepContext) -> None:
        """Count what the teacher sees in the unlabelled positions of a later step, for the sizes of the replay.

        Raises:
            ContsegError: there are no statistics of the old classes, or they are of other classes.
        """
        step = context.step
        if not step.old_count:
            self.state.clear()
            return
        self.require_statistics(step)
        assert context.predict_teacher is not None
        predicted = torch.zeros(step.old_count, dtype=torch.float64, device=context.student.mean.device)
        added = predicted.new_zeros(())
        for batch in context.loader:
            output = context.predict_teacher(batch)
            size = (output.logits.shape[2], output.logits.shape[3])
            decided = sampled(self.decision(output, batch), size)[sampled(unlabelled(batch, step), size)]
            predicted += decided.bincount(minlength=step.old_count)
            labels = sampled(batch.labels, size)
            added += ((labels >= step.old_count) & (labels < step.seen_count)).sum()
        sizes = self.sizes(context.ranks.sum(predicted).cpu(), float(context.ranks.sum(added)), context)
        self.state.update(
            counts=sizes.counts, background=torch.tensor(sizes.background, dtype=torch.float64), later=sizes.numbers
        )

    def sizes(self, predicted: Tensor, added: float, context: StepContext) -> ReplaySizes:
        """The sizes of the replay of a step, see `replay_sizes`.

        Args:
            predicted: (1 + K,) unlabelled positions, by the teacher's decision.
            added: positions of the new classes.
        """
        numbers = self.state["numbers"].cpu()
        return replay_sizes(numbers, predicted, context.step.new_count, context.updates, self.setting)

    def require_statistics(self, step: Step) -> None:
        """Raise ContsegError unless there are statistics of the old classes of a step, in their order."""
        found = self.state.get("classes")
        if found is None:
            raise ContsegError(
                f"method {self.name}: no statistics of the old classes are stored, so nothing can be replayed at step"
                f" {step.index}; start from a run of {self.name}, or give step 0 its images"
            )
        if tuple(found.tolist()) != step.old_classes[1:]:
            raise ContsegError(
                f"method {self.name}: the statistics are of the classes {found.tolist()} (ids in their order), and step"
                f" {step.index} continues {list(step.old_classes[1:])}; start from a run with these classes"
            )

    def decision(self, teacher: SegmenterOutput, batch: Batch) -> Tensor:
        """The class that the teacher sees in each pixel, (B, H, W), 0 for background."""
        return decided(teacher.logits_at(batch.size)[:, 1:], self.threshold)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Supervised term with replay (eq. 6 to 8) + features of old regions (eq. 9) + contrast of prototypes (eq. 10)."""
        if teacher is None:
            return super().losses(batch, student, teacher, context)
        decided, free = self.decision(teacher, batch), unlabelled(batch, context.step)
        terms = {"binary": self.replayed(batch, student, free & (decided == 0), context)}
        ours = precise(student.features["head"])
        if self.features:
            mask = resize((free & (decided > 0))[:, None].to(ours.dtype), (ours.shape[2], ours.shape[3]))[:, 0]
            total = context.ranks.sum(mask.sum()) / context.ranks.count
            kept = masked_distance(ours, teacher.features["head"], mask, total, self.epsilon / context.ranks.count)
            terms["features"] = self.features * kept
        if self.contrast:
            terms["contrast"] = self.contrast * self.apart(batch, ours, context)
        return terms

    def replayed(self, batch: Batch, student: SegmenterOutput, background_BHW: Tensor, context: StepContext) -> Tensor:
        """Supervised term, drawn features and features of background in one mean per class, summed over new classes.

        Args:
            background_BHW: pixels without a label in which the teacher sees no class.
        """
        logits_BNHW = functional.softplus(precise(student.logits[:, context.step.old_count :]))
        region = sampled(background_BHW, (logits_BNHW.shape[2], logits_BNHW.shape[3]))
        positions, weight = region.numel(), self.state["background"].to(logits_BNHW)
        share = context.ranks.sum(region.sum()).to(logits_BNHW) / context.ranks.count / positions
        drawn, outside = self.draw(context), logits_BNHW.new_zeros(())
        fake = len(drawn) / positions / context.ranks.count
        if len(drawn):
            newest = context.student.classifier.of_vectors(drawn, slice(-1, None))
            outside = fake * functional.softplus(newest).mean(dim=0).sum()
        behind = weight / positions * (logits_BNHW * region[:, None]).sum()
        own = self.supervise(student, batch, context)
        return (own + outside + behind) / (1 + weight * share + fake)

    def draw(self, context: StepContext) -> Tensor:
        """Features of old classes for an update, (R, D), the same on every rank."""
        like = context.student.mean
        prototypes, noise, norms = (self.state[name].to(like) for name in ("prototypes", "noise", "norms"))
        counts = self.state["counts"].to(like.device)
        shape = (int(self.state["counts"].sum()), prototypes.shape[1])
        direction = torch.randn(shape, generator=context.generator).to(like)
        length = torch.randn(self.length_shape(shape), generator=context.generator).to(like)
        return fake_features(prototypes, noise, norms, counts, direction, length)

    def length_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Draws for the norms of features (R, D): one for each."""
        return shape[0], 1

    def apart(self, batch: Batch, features_BDHW: Tensor, context: StepContext) -> Tensor:
        """Inverse distance of the new classes of a batch from the prototypes, see `prototype_contrast`."""
        classes = torch.arange(context.step.old_count, context.step.seen_count, device=features_BDHW.device)
        maps = (batch.labels[:, None] == classes[:, None, None]).to(features_BDHW.dtype)
        weights = resize(maps, (features_BDHW.shape[2], features_BDHW.shape[3]))
        sums = context.ranks.sum(direction_sums(features_BDHW, weights))
        return prototype_contrast(sums, self.state["prototypes"].to(sums))

    @torch.no_grad()
    def after_step(self, context: StepContext) -> None:
        """Store the statistics of the new classes, from one pass; those of old classes stay as they are."""
        step = context.step
        first = max(1, step.old_count)
        sums, free = ClassSums(first, step.seen_count - first), torch.zeros((), dtype=torch.float64)
        for batch, output in context.look(("head",)):
            features = output.features["head"]
            sums.add(features, batch.labels)
            free = free.to(features.device) + (sampled(batch.labels, features.shape[2:]) == 0).sum()  # type: ignore[arg-type]
        sums.gathered(context.ranks)
        numbers = self.state["later"] if step.old_count else context.ranks.sum(free).cpu()[None]
        self.store(sums, numbers, context)

    def store(self, sums: ClassSums, numbers: Tensor, context: StepContext) -> None:
        """Append the statistics of the new classes.

        Args:
            numbers: positions of background and of the old classes.
        """

        def joined(name: str, new: Tensor, dim: int = 0) -> Tensor:
            new = new.to("cpu", context.student.mean.dtype)
            return torch.cat([self.state[name].cpu(), new], dim=dim) if name in self.state else new

        prototypes, norms = joined("prototypes", sums.prototypes), joined("norms", sums.norms, dim=1)
        noise = joined("noise", self.noise(sums, prototypes))
        self.state.update(
            classes=torch.tensor(context.step.seen_classes[1:]),
            numbers=torch.cat([numbers.cpu(), sums.numbers.cpu()]),
            prototypes=prototypes,
            norms=norms,
            noise=noise,
        )

    def noise(self, sums: ClassSums, prototypes_KD: Tensor) -> Tensor:
        """Deviations of directions of the new classes from their own prototypes.

        Args:
            prototypes_KD: of all classes.
        """
        return sums.noise()


def unlabelled(batch: Batch, step: Step) -> Tensor:
    """Pixels (B, H, W) bool that show no class of the step: background, or an old class of an exemplar.

    In an image in which the classes of the step were not annotated, background may hide them and does not count.
    """
    truth = batch.annotated[:, step.old_count :].all(dim=1)[:, None, None] | (batch.labels > 0)
    return (batch.labels < step.old_count) & (batch.labels != IGNORE) & truth
