"""The interface of a continual method: calls around the updates of a step, all of them optional."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.errors import ContsegError
from contseg.losses.cross_entropy import cross_entropy
from contseg.losses.masks.costs import WEIGHTS
from contseg.methods.mask_supervision import Matched, mask_and_dice, match, plain_class_term
from contseg.models.classifier import Start
from contseg.models.names import Background
from contseg.models.options import NetworkOptions
from contseg.models.pixelwise import per_pixel
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.ranks import Ranks
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step

Prediction = Literal["pixels", "masks"]
KeepFeatures = Callable[[Iterable[Batch], Segmenter, Sequence[str]], AbstractContextManager[Iterable[Batch]]]
"""From batches, a segmenter and taps to a block with the same batches, whose features may be kept."""


@dataclass
class StepContext:
    """What a method can read in addition to the batch and the outputs.

    Args:
        student: the segmenter being trained (the plain module, without wrappers).
        teacher: frozen copy of the previous step's segmenter. None in step 0 and for methods without a teacher.
        step: the new and the old classes.
        previous: the previous step's segmenter, also for methods without a teacher, which read its weights in `after_step`.
            None in step 0.
        epoch, epochs: current epoch and number of epochs of the step. `epochs` is 0 in a step without updates.
        loader: one pass over the step's own training images (without the exemplars of a memory), in batches on the device.
            Augmentation and order differ from those of training epochs and are the same in every iteration. As in an epoch,
            only whole updates of `batch` x `accumulate` images are used: the rest is dropped, and a step with fewer images
            repeats some. Each rank gets its share of every batch.
        every_sample: one pass over the same images without augmentation, cut as in evaluation, each image exactly once,
            with the labels of training. For class means and closed-form solutions. Each rank gets its share of the images
            and may get one batch more than another: use `ranks` after the pass, not within it.
        predict_teacher: normalised forward pass of the teacher at the precision of the run.
        predict_student: normalised forward pass of the student with some taps, at the precision of the run; see `look`.
        updates: of the weights in an epoch.
        generator: for random draws of the method, on CPU, seeded by (seed, step, iteration).
        ranks: sums and gathers over processes.
        average: which pixels the supervised term averages over, see `TrainingOptions`.
        passes: forward passes per update (`training.accumulate`).
        labels_of_update: function that returns the final labels of every pass of this update, including the current batch.
            None if an update has one pass.
        batches_of_update: the same for the whole batches, of which a method may count more than valid pixels.
        update_seed: of the points of masks, from (seed, step, update); None: drawn from `generator`.
        pass_number: of this pass in its update.
        left_out: target masks of this epoch that found no query, as their image has more masks than the network has queries.
        keep_features: keeps features in files (`training.features`), see `rereading`; None keeps nothing.
    """

    student: Segmenter
    teacher: Segmenter | None
    step: Step
    epochs: int
    loader: Iterable[Batch]
    every_sample: Iterable[Batch] = ()
    ranks: Ranks = field(default_factory=Ranks)
    generator: torch.Generator = field(default_factory=torch.Generator)
    predict_teacher: Callable[[Batch], SegmenterOutput] | None = None
    predict_student: Callable[[Batch, Sequence[str]], SegmenterOutput] | None = None
    epoch: int = 0
    average: Literal["all", "valid"] = "all"
    passes: int = 1
    updates: int = 1
    labels_of_update: Callable[[], Sequence[Tensor]] | None = None
    batches_of_update: Callable[[], Sequence[Batch]] | None = None
    previous: Segmenter | None = None
    keep_features: KeepFeatures | None = None
    update_seed: int | None = None
    pass_number: int = 0
    left_out: int = 0

    @contextmanager
    def rereading(self, taps: Sequence[str]) -> Iterator["StepContext"]:
        """This context, whose `every_sample` may keep features of the student from one pass to the next.

        Within the block, the student's features must not change, and its batches may have `held` features in place of
        images.

        Args:
            taps: features that are read, besides the logits, with the student in evaluation mode.
        """
        if self.keep_features is None:
            yield self
            return
        with self.keep_features(self.every_sample, self.student, taps) as batches:
            yield replace(self, every_sample=batches)

    @property
    def progress(self) -> float:
        """Share of the step's epochs at the end of the current one, in (0, 1]."""
        return (self.epoch + 1) / self.epochs

    @classmethod
    def for_loop(
        cls,
        student: Segmenter,
        teacher: Segmenter | None,
        step: Step,
        method: "Method",
        batches: Iterable[Batch] = (),
        epochs: int = 1,
    ) -> "StepContext":
        """The context of a training loop of your own: one process, full precision, one pass per update.

        Args:
            teacher: segmenter of the previous step, put into evaluation mode here, with frozen parameters. None in step 0.
            method: of the loop; a teacher that it does not need is dropped.
            batches: for methods that iterate over the images before or after the step (`loader` and `every_sample`).
            epochs: of the step.
        """
        previous = teacher
        if not method.needs_teacher:
            teacher = None
        if teacher is not None:
            teacher.eval().requires_grad_(False)

        @torch.no_grad()  # not inference mode, whose tensors cannot be saved for backward
        def predict_teacher(batch: Batch) -> SegmenterOutput:
            assert teacher is not None
            return teacher(teacher.normalise(batch.images), taps=method.taps)

        predict = predict_teacher if teacher is not None else None
        return cls(student, teacher, step, epochs, batches, batches, predict_teacher=predict, previous=previous)

    def look(self, taps: Sequence[str] = (), epoch: bool = True) -> Iterator[tuple[Batch, SegmenterOutput]]:
        """A pass over the images of the step with the student in evaluation mode, without gradients.

        For statistics of features before, within or after a step. Each rank sees its share: sum the results with `ranks`.
        The student returns to its mode when the pass ends, however it ends.

        Args:
            taps: features of the student.
            epoch: over `loader`, augmented as in an epoch; or over `every_sample`, each image once.

        Yields:
            a batch and the output of the student.
        """
        student, training = self.student, self.student.training
        predict = self.predict_student or (lambda batch, taps: student(student.normalise(batch.images), taps=taps))
        student.eval()
        try:
            for batch in self.loader if epoch else self.every_sample:
                with torch.no_grad():
                    output = predict(batch, taps)
                yield batch, output
        finally:
            student.train(training)

    def mean_over_valid(
        self, loss_BHW: Tensor, labels_BHW: Tensor, derive: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Mean of a loss over the valid (not ignored) pixels of all ranks; 0 if there are none.

        Averaged over ranks and over the passes of an update, the results (and their gradients) are the mean over the large
        batch.

        Args:
            loss_BHW: loss per pixel, 0 where ignored.
            labels_BHW: labels of the batch (the tensor itself), or labels that `derive` computes from them.
            derive: that function. Required if an update has several passes, to count valid pixels in the other passes.

        Raises:
            ContsegError: an update has several passes, and the labels are not those of the batch.
        """
        if self.labels_of_update is None:
            valid = self.ranks.sum((labels_BHW != IGNORE).sum()) / self.ranks.count
        else:
            labels = self.labels_of_update()
            if derive is None and not any(labels_BHW is one for one in labels):
                raise ContsegError(
                    "training.accumulate: the method averages over labels of its own, which cannot be counted in all"
                    " passes of an update; pass `derive` to mean_over_valid, or set training.accumulate=1"
                )
            counts = [((derive(one) if derive else one) != IGNORE).sum() for one in labels]
            valid = self.ranks.sum(torch.stack(counts).sum()) / self.ranks.count / len(labels)
        return loss_BHW.sum() / valid.clamp(min=1 / self.ranks.count / max(1, self.passes))


@dataclass(frozen=True)
class Method:
    """A continual method. Subclasses are frozen dataclasses whose fields are the hyper-parameters of the paper.

    What a method remembers between steps goes into `state`, a dictionary of tensors. It is saved with every checkpoint and
    restored on resume. Nothing else in a method changes.

    Class attributes:
        name: its name in recipes.
        variant: `paper` or `released` if the released code computes something else than the paper: two classes of one name.
        needs_teacher: whether later steps run the previous segmenter.
        new_classes_start_from: how the classifiers of new classes are initialised, see `Segmenter.grow`.
        handles_unknown: whether it can learn with an output "unknown" before background (label policy `ssul`).
        needs_unknown: whether it requires that output.
        handles_leak: whether it can learn from labels of a class that has no output yet (`scenario.variant: released`).
        ignores_undecided: whether its code leaves undecided pixels out of the mIoU (`evaluation.undecided: ignored`).
        backgrounds: kinds of `network.background` with which it can learn, the usual one first.
        learns: which predictions it learns with: the `pixels` of a network that classifies pixels, or `masks`.
        first_step_is_plain: the updates of step 0 are plain cross-entropy (of masks: Mask2Former's criterion) and leave no
            state, so that other such methods share them; `after_step` follows. Applies to the class that sets it, not to
            its subclasses.
        learns_without_updates: whether `training.epochs` may be 0: it learns a step in `before_step` or `after_step`.
        updates_later_steps: whether later steps are learned by updates. If not, `training.epochs` must be 0 there, as in
            [30, 0].
        rereads: whether it reads `StepContext.every_sample` several times, through `StepContext.rereading`.
        inert_terms: terms that by design reach no trainable parameter (only in `released` variants).
        whole_batch_terms: names of what compares the images of a batch with each other, or updates `state` with every batch.
            Over several passes (`training.accumulate`) it differs from the large batch, so the method is refused there.

    Class attributes or properties:
        taps: features that `losses` reads in steps with a teacher, see `Segmenter.forward`.
        first_taps: features that `losses` reads without a teacher.
    """

    name: ClassVar[str]
    variant: ClassVar[Literal["paper", "released"]] = "paper"
    needs_teacher: ClassVar[bool] = False
    new_classes_start_from: ClassVar[Start] = "random"
    handles_unknown: ClassVar[bool] = False
    handles_leak: ClassVar[bool] = False
    ignores_undecided: ClassVar[bool] = False
    needs_unknown: ClassVar[bool] = False
    backgrounds: ClassVar[tuple[Background, ...]] = ("learned",)
    learns: ClassVar[tuple[Prediction, ...]] = ("pixels",)
    first_step_is_plain: ClassVar[bool] = False
    learns_without_updates: ClassVar[bool] = False
    updates_later_steps: ClassVar[bool] = True
    rereads: ClassVar[bool] = False
    inert_terms: ClassVar[frozenset[str]] = frozenset()
    whole_batch_terms: ClassVar[tuple[str, ...]] = ()

    @property
    def taps(self) -> tuple[str, ...]:
        """None by default."""
        return ()

    @property
    def first_taps(self) -> tuple[str, ...]:
        """None by default."""
        return ()

    state: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Terms of the objective, name to scalar; their sum is minimised. By default, the supervised term alone.

        Args:
            batch: with the labels that `relabel` returned.
            student, teacher: their outputs; `teacher` is None in step 0 and for methods without a teacher.
        """
        if student.masks is not None:
            return self.mask_terms(student, batch, context)
        return {"cross_entropy": self.supervise(student, batch, context)}

    def mask_terms(
        self, output: SegmenterOutput, batch: Batch, context: StepContext, matched: Matched | None = None
    ) -> dict[str, Tensor]:
        """The supervised terms `class`, `mask` and `dice` of a prediction of masks, weighted.

        Args:
            matched: what `match` has found for this output.
        """
        assert output.masks is not None
        found = match(output, batch, context) if matched is None else matched
        terms = {"class": self.class_term(output.masks.class_logits, found, batch, context)}
        return {name: WEIGHTS[name] * term for name, term in (terms | mask_and_dice(output.masks, found)).items()}

    def class_term(self, class_logits_BQC: Tensor, matched: Matched, batch: Batch, context: StepContext) -> Tensor:
        """The loss of the classes of queries, a scalar; by default cross-entropy with weight 0.1 of no-object."""
        return plain_class_term(class_logits_BQC, matched, batch, context, leaked=self.handles_leak)

    def supervise(self, output: SegmenterOutput, batch: Batch, context: StepContext) -> Tensor:
        """Supervised term of an output, a scalar. Also applied to each auxiliary output and multiplied by its weight.

        By default, cross-entropy: the mean over all pixels, or over the valid ones with `training.average=valid` (0 if there
        are none). Of a prediction of masks: the sum of `mask_terms`.
        """
        if output.masks is not None:
            return torch.stack(list(self.mask_terms(output, batch, context).values())).sum()
        loss = per_pixel(cross_entropy, batch.size, output, batch.labels)
        return loss.mean() if context.average == "all" else context.mean_over_valid(loss, batch.labels)

    def relabel(self, batch: Batch, teacher: SegmenterOutput | None, context: StepContext) -> Batch:
        """Batch with the final labels of the method (pseudo-labels). Called once per batch, before the losses.

        Also called for a few images after the last update, for the report; so it changes no state.
        """
        return batch

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """Check that this method can learn these steps with this network. Called before a run is created.

        Raises:
            ContsegError: it cannot. By default: the network has another kind of background, or lacks a feature that the
                method reads.
        """
        predicts: Prediction = "masks" if network.masks else "pixels"
        if predicts not in self.learns:
            what = {"pixels": "a class for each pixel", "masks": "masks and their classes"}
            way = (
                "use method.name=mib-masks or plop-masks, or another network.head"
                if network.masks
                else "set network.head=eomt"
            )
            raise ContsegError(
                f"method.name: '{self.name}' learns from {what[self.learns[0]]}, and {network.title} predicts"
                f" {what[predicts]}; {way}"
            )
        if network.background not in self.backgrounds and not network.masks:
            raise ContsegError(
                f"network.background: method '{self.name}' cannot learn with {network.background}; set"
                f" network.background={self.backgrounds[0]}"
            )
        there = network.taps
        for tap in (*self.taps, *self.first_taps):
            if tap not in there:
                way = "set network.head=deeplabv3-ssul, or use another method" if "stage1" in there else "use another method"
                raise ContsegError(
                    f"method.name: '{self.name}' reads {tap}, and {network.title} has only {', '.join(there)}; {way}"
                )

    def first_step_key(self) -> dict[str, Any]:
        """Everything in this method that changes step 0. `{}` is plain cross-entropy, which methods share through the cache.

        By default, name and hyper-parameters. Methods with `first_step_is_plain` return `{}`.
        """
        if vars(type(self)).get("first_step_is_plain", False):  # not inherited: a subclass may learn step 0 differently
            return {}
        key: dict[str, Any] = {"method": self.name}
        for each in fields(self):
            if each.init:
                value = getattr(self, each.name)
                key[each.name] = value if isinstance(value, bool | int | float | str | None) else repr(value)
        return key

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Called with what was stored next to the segmenter of `start_from`, before its step 0: see `save_pretrained`.

        Args:
            statistics: tensors of any method; {} if there are none.
        """

    def prepare(self, segmenter: Segmenter, step: Step) -> None:
        """Change or freeze parts of the segmenter after `grow`, before the optimiser is created.

        Must be deterministic; repeated on resume.
        """

    def parameter_groups(self, segmenter: Segmenter, step: Step) -> list[dict[str, Any]]:
        """Parameter groups. `lr_factor` multiplies the learning rate of the step; other keys go to the optimiser."""
        return [{"params": [p for p in segmenter.parameters() if p.requires_grad], "lr_factor": 1.0}]

    def before_step(self, context: StepContext) -> None:
        """Called once before the first batch of a step. Not repeated on resume, so results go into `state`."""

    def after_backward(self, context: StepContext) -> None:
        """Called once per update, with gradients unscaled and averaged over ranks. May add to `.grad`."""

    def after_update(self, context: StepContext) -> None:
        """Called after every update of the weights."""

    def after_epoch(self, context: StepContext) -> None:
        """Called after the last update of every epoch; its results go into `state`, which is saved after it."""

    def after_step(self, context: StepContext) -> None:
        """Called after the last update of a step, while the teacher is still available."""

    def kept(self, name: str, device: torch.device) -> Tensor:
        """A tensor of `state`, which stays on the device from then on: a copy in every update would make the device wait."""
        if self.state[name].device != device:
            self.state[name] = self.state[name].to(device)
        return self.state[name]

    def state_dict(self) -> dict[str, Tensor]:
        """`state` on CPU."""
        return {name: value.detach().cpu() for name, value in self.state.items()}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.state.clear()
        self.state.update(saved)
