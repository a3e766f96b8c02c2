"""Train a step: the loop over epochs, saving and resuming."""

import time
from typing import Any

import torch
from torch import Tensor

from contseg.engine.best_epoch import BestEpoch, validation_rows, validation_scope, validation_score
from contseg.engine.feature_cache import discard_features, hold_features
from contseg.engine.label_origins import keep_label_origins
from contseg.engine.loading import StepBatches
from contseg.engine.measure import measure_validation, validation_batches
from contseg.engine.progress import Progress
from contseg.engine.ranks import restore_scaler, scaler_state
from contseg.engine.session import Session
from contseg.engine.step_state import StepState
from contseg.engine.update import Updater
from contseg.engine.waits import waiting_for
from contseg.interruption import Interrupted, at_once, deferred, requested
from contseg.models.segmenter import Segmenter
from contseg.scenarios.step import Step


class StepLearner:
    """Trains a student on one step.

    Args:
        student: already grown to the classes of the step.
        previous: the segmenter of the step before, or None. It is frozen if the method needs a teacher.
    """

    def __init__(self, session: Session, step: Step, student: Segmenter, previous: Segmenter | None):
        job = session.job
        self.session, self.step, self.student, self.options = session, step, student, job.training
        self.epochs = job.training.epochs_of(step.index)
        device = session.fabric.device
        self.batches = StepBatches(step, job.training_pipeline, job.training, job.exemplar_share, device, session.shard)
        self._held_out = validation_batches(session, step)
        self.updater = Updater(session, step, student, previous, self.batches)
        self.best = BestEpoch()
        self.seconds = 0.0
        self._gathered_signal: Tensor | None = None

    def learn(self) -> None:
        """Train the student in place, from the last saved update if there is one. `finish` completes the step.

        Raises:
            ContsegError: see `Updater.update`; the last saved state is kept.
            Interrupted: a signal ended the training; the current update was finished and saved.
        """
        step, method, reporter, context = self.step, self.session.job.method, self.session.reporter, self.updater.context
        state = self.session.run.load_state(step.index)
        begun = self._restore(state) if state else Progress(0)
        if not state:
            method.before_step(context)
        if begun.epoch < self.epochs:
            hold_features(self.session, step, self.updater, self.batches)
        left = (self.epochs - begun.epoch) * self.batches.updates - begun.updates
        reporter.step_started(step.index, len(self.session.job.scenario), step.table.names[step.old_count :], left)
        if self.options.keep == "best" and begun.epoch < self.epochs and (unseen := validation_scope(step)):
            reporter.message(f"step {step.index}: {unseen}")
        with deferred():
            try:
                for epoch in range(begun.epoch, self.epochs):
                    self._learn_epoch(begun if epoch == begun.epoch else Progress(epoch))
            finally:
                self._close()
        self.batches.held = None
        discard_features(self.session, step)
        if self.options.keep == "best" and self.epochs:
            self.best.restore(self.student, method)
            reporter.message(self.best.describe(step.index))

    def finish(self) -> float:
        """Keep examples of its labels for the report, and call the method after the last update.

        Returns:
            the seconds spent on the step, over all attempts.
        """
        started = time.perf_counter()
        keep_label_origins(self.session, self.step, self.updater.context)
        self.session.job.method.after_step(self.updater.context)
        self.updater.close()
        return self.seconds + time.perf_counter() - started

    def _close(self) -> None:
        """End the workers of the epochs and of their validation."""
        self.batches.close()
        self._held_out.close()

    def _learn_epoch(self, progress: Progress) -> None:
        """Train an epoch to its end, or to the update at which a signal ends it, and save the state."""
        started = time.perf_counter() - progress.seconds
        line = self._epoch(progress, started)
        if self.options.keep == "best":
            line |= {"validation": self._measure_unless_interrupted(progress, started)}
        self.session.job.method.after_epoch(self.updater.context)
        seconds = time.perf_counter() - started
        self.seconds += seconds
        self.session.run.append_metrics(line | {"seconds": round(seconds, 3)})
        self.session.run.save_state(self.step.index, self._state(progress.epoch + 1))
        self.session.reporter.epoch_finished(progress.epoch, self.epochs, line["loss"], line["images_per_second"])
        self.session.loggers.update()
        self.session.fabric.barrier()

    def _epoch(self, progress: Progress, started: float) -> dict[str, Any]:
        """Make the remaining updates of an epoch; returns its line of metrics.jsonl.

        Args:
            started: value of `time.perf_counter` at which the epoch began.
        """
        epoch, sums, passes, ranks = progress.epoch, progress.sums, self.options.accumulate, self.session.ranks
        first, total = epoch * self.batches.updates, self.epochs * self.batches.updates
        self.updater.begin_epoch(epoch, progress.pseudo)
        batches = self.batches.epoch(epoch, progress.updates * passes)
        for number in range(progress.updates, self.batches.updates):
            with waiting_for(f"update {number} of epoch {epoch} of step {self.step.index}"):
                for terms in self.updater.update(batches, first + number, total):
                    for name, value in terms.items():
                        sums[name] = sums.get(name, 0.0) + value
                progress.updates = number + 1
                self.session.reporter.updated(epoch, self.epochs, self.updater.loss, self.options.batch * passes)
                signal = self._signal()
            if signal:
                self.batches.close()  # ends the workers
                self._save_within(progress, started)
                raise Interrupted(signal)
        count = self.batches.updates * passes
        means = {name: float(ranks.sum(value)) / count / ranks.count for name, value in sums.items()}
        pseudo = self.updater.pseudo.shares(ranks) if self.updater.pseudo else {}
        elapsed = time.perf_counter() - started
        left_out = self._left_out()
        return {
            "kind": "epoch",
            "step": self.step.index,
            "epoch": epoch,
            "loss": sum(means.values()),
            "terms": means,
            "lr": self.updater.optimiser.param_groups[0]["lr"],
            "images_per_second": round(count * self.options.batch / elapsed, 1),
            **({"pseudo": pseudo} if pseudo else {}),
            **({"masks_left_out": left_out} if left_out else {}),
        }

    def _left_out(self) -> int:
        """Target masks of this epoch without a query, over all ranks."""
        context = self.updater.context
        if not self.student.options.masks:
            return 0
        return int(context.ranks.sum(torch.tensor(context.left_out, device=self.student.mean.device)))

    def _signal(self) -> int:
        """The signal, on any rank, that ends the run after this update; 0 without one.

        All ranks must end at the same update. Each reads the signals that were gathered one update earlier, which does not
        wait for the device.
        """
        number, ranks = requested() or 0, self.session.ranks
        if ranks.count == 1:
            return number
        before = self._gathered_signal
        self._gathered_signal = ranks.gather(torch.full((1,), number, device=self.session.fabric.device)).amax()
        return 0 if before is None else int(before)

    def _measure_unless_interrupted(self, progress: Progress, started: float) -> float | None:
        """Call `_measure`. With a single process a signal interrupts it, as it may take long; a resume repeats it."""
        if self.session.ranks.count > 1:
            return self._measure(progress.epoch)
        try:
            with at_once():
                return self._measure(progress.epoch)
        except Interrupted:
            self._save_within(progress, started)
            raise

    def _measure(self, epoch: int) -> float | None:
        """The score of an epoch on the held-out images; the best epoch so far is kept."""
        rows = validation_rows(self.step)
        confusion = measure_validation(self.session, self.step, self._held_out, self.student, rows)
        score = validation_score(confusion, self.step)
        self.best.offer(epoch, score, self.student, self.session.job.method)
        return score

    def _save_within(self, progress: Progress, started: float) -> None:
        """Save the state in the middle of an epoch."""
        progress.seconds = time.perf_counter() - started
        progress.pseudo = self.updater.pseudo.counts if self.updater.pseudo else None
        within = progress.saved(self.session.ranks)
        self.session.run.save_state(self.step.index, self._state(progress.epoch, within))
        self.session.fabric.barrier()

    def _state(self, epochs_done: int, within: dict[str, Any] | None = None) -> StepState:
        return StepState(
            finished=False,
            seconds=self.seconds,
            method=self.session.job.method.state_dict(),
            scaler=scaler_state(self.session.fabric),
            epochs_done=epochs_done,
            model=self.student.state_dict(),
            optimiser=self.updater.optimiser.state_dict(),
            best=self.best.kept,
            within=within,
        )

    def _restore(self, state: StepState) -> Progress:
        self.student.load_state_dict(state.model)
        now = self.updater.optimiser.state_dict()["param_groups"]  # of the recipe, which may have accepted changes
        saved = state.optimiser["param_groups"]
        groups = [group | {"lr": before["lr"]} for group, before in zip(now, saved, strict=True)]  # of the last update
        self.updater.optimiser.load_state_dict(state.optimiser | {"param_groups": groups})
        self.session.job.method.load_state_dict(state.method)
        self.best, self.seconds = BestEpoch(state.best), state.seconds
        restore_scaler(self.session.fabric, state.scaler)
        return Progress.of(state.epochs_done, state.within, self.session.ranks, self.session.fabric.device)
