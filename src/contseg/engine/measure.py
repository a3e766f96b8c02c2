"""Evaluate a segmenter on the test set of a step and on held-out images, and record the results."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from contseg.engine.loading import Batches, evaluation_batches
from contseg.engine.memory import peak_memory
from contseg.engine.ranks import scaler_state
from contseg.engine.run import STEP_ARRAYS
from contseg.engine.samples import keep_predictions
from contseg.engine.session import Session
from contseg.engine.step_state import StepState
from contseg.errors import ContsegError
from contseg.evaluation.alarms import background_warnings
from contseg.evaluation.inference import Inference
from contseg.evaluation.metrics import step_figures
from contseg.evaluation.panoptic import PanopticCounts, panoptic_figures
from contseg.evaluation.predict import evaluate, evaluate_domains
from contseg.evaluation.remarks import step_remarks
from contseg.evaluation.segments import SegmentCounter, measures_segments
from contseg.interop.segmenter_file import load_segmenter
from contseg.models.segmenter import Segmenter
from contseg.scenarios.scenario import Scenario
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class Counted:
    """What is counted on the test set of a step, over all ranks.

    Args:
        by_domain: confusion matrices (domains, K, K); without domains (1, K, K).
        panoptic: sums of panoptic quality; None of a network without masks, or of data without objects.
    """

    by_domain: np.ndarray
    panoptic: PanopticCounts | None = None

    @property
    def confusion(self) -> np.ndarray:
        """The confusion matrix (K, K) over all domains."""
        return self.by_domain.sum(axis=0)


def measure_test(session: Session, step: Step, segmenter: Segmenter) -> Counted:
    """Measure a segmenter on the test set of a step."""
    job, reporter = session.job, session.reporter
    batches = evaluation_batches(step.test, job.evaluation_pipeline, job.training, session.fabric.device, session.shard)
    reporter.evaluating(len(batches))
    domains = job.scenario.domains or ("",)
    domain_of = job.scenario.dataset.domain_of if job.scenario.domains else lambda name: ""
    inference = job.inference_at(step)
    together = job.training.batch // session.ranks.count
    counter = (
        SegmentCounter(segmenter, step.table, inference) if measures_segments(job.scenario.dataset, segmenter) else None
    )
    predict = counter.predict if counter else None
    counts = evaluate_domains(
        segmenter, batches, step.seen_count, domains, domain_of, reporter.evaluated, inference, together, predict
    )
    by_domain = session.ranks.sum(counts).cpu().numpy()
    if counter is None:
        return Counted(by_domain)
    sums = session.ranks.sum(torch.from_numpy(counter.counts.array()).to(session.fabric.device))
    return Counted(by_domain, PanopticCounts.of_array(sums.cpu().numpy()))


def validation_batches(session: Session, step: Step) -> Batches:
    """The held-out images of a step, for a pass after every epoch."""
    job, device = session.job, session.fabric.device
    return evaluation_batches(step.val, job.evaluation_pipeline, job.training, device, session.shard, stay=True)


def measure_validation(session: Session, step: Step, batches: Batches, student: Segmenter, rows: int) -> np.ndarray:
    """Confusion matrix (rows, rows) on the held-out images of a step, over all ranks, without scales and flips.

    Args:
        batches: `validation_batches`.
    """
    job = session.job
    inference = Inference(job.inference.single(), job.inference_at(step).mirror)
    together = job.training.batch // session.ranks.count
    return session.ranks.sum(evaluate(student, batches, rows, inference=inference, together=together)).cpu().numpy()


def measure_again(session: Session, step: Step) -> None:
    """Rebuild the missing files of a finished step from its segmenter: the confusion matrix and the sample predictions.

    Raises:
        ContsegError: the segmenter is missing too, or has other classes.
    """
    run, fabric = session.run, session.fabric
    lost = fabric.broadcast([name for name in STEP_ARRAYS if not run.is_readable(f"steps/{step.index:02d}/{name}")])
    if not lost:
        return
    path = run.segmenter_path(step.index)
    if not path.is_file():
        raise ContsegError(
            f"{path}: not found, but {lost[0]} is missing or damaged and must be computed from it; restore one of the two,"
            " or start over with --overwrite"
        )
    segmenter, classes = load_segmenter(path)
    if classes.names != step.table.names:
        raise ContsegError(
            f"{path}: has the classes {', '.join(classes.names)}, but step {step.index} ends with"
            f" {', '.join(step.table.names)}; restore the file that this run wrote"
        )
    session.reporter.message(f"step {step.index}: {' and '.join(lost)} missing or damaged, computed again")
    segmenter.to(fabric.device)
    found = measure_test(session, step, segmenter)
    if session.leads:
        keep_confusion(session, step, found.by_domain)
        keep_predictions(session, step, segmenter)
    fabric.barrier()


def figures_of(scenario: Scenario, step: Step, counts: Counted) -> dict[str, Any]:
    """The metrics of a step, and `notes` on what they exclude.

    Where panoptic quality was measured, `panoptic` has the figures of `panoptic_figures`, and the `sums` that they are
    computed from.
    """
    confusion = counts.confusion
    groups, background = scenario.groups, scenario.has_background
    notes = step_remarks(confusion, groups, background, step.table.names, step.test.annotated)
    figures = step_figures(confusion, groups, background) | {"notes": notes}
    if counts.panoptic is not None:
        quality = panoptic_figures(counts.panoptic, groups, step.table.is_thing, background)
        figures["panoptic"] = quality | {"things": step.table.is_thing.tolist(), "sums": counts.panoptic.as_json()}
    return figures


def keep_confusion(session: Session, step: Step, by_domain: np.ndarray) -> None:
    """Write the confusion matrices of a step, by domain."""
    scenario = session.job.scenario
    session.run.save_arrays(
        f"steps/{step.index:02d}/confusion.npz",
        confusion=by_domain.sum(axis=0),
        groups=np.array(scenario.groups),
        background=np.array(scenario.has_background),
        names=np.array(step.table.names, dtype=str),
        annotated=step.test.annotated,
        domains=np.array(scenario.domains, dtype=str),
        by_domain=by_domain[: len(scenario.domains)],
    )


def record(session: Session, step: Step, student: Segmenter, counts: Counted, started: float) -> dict[str, Any]:
    """Write the files of a finished step; last `state.pt`, which marks the step as finished.

    Args:
        counts: as `measure_test` returns them.
        started: value of `time.perf_counter` at which the step would have begun without interruptions.

    Returns:
        the step's line of metrics.jsonl: metrics and cost. `peak_memory` is in bytes, of this process and so far;
        `stored_bytes` is the state of the method, which the next step needs besides the model.
    """
    job, run, confusion = session.job, session.run, counts.confusion
    source = {"recipe": job.recipe.get("name", ""), "step": step.index, "plan": run.plan_hash}
    if job.start_from is not None:
        source["start_from"] = str(job.start_from)
    run.save_segmenter(step.index, student, step.table, source)
    keep_predictions(session, step, student)
    keep_confusion(session, step, counts.by_domain)
    figures = figures_of(job.scenario, step, counts)
    warnings: list[str] = []
    if step.index and job.scenario.has_background:
        warnings = background_warnings(run.confusion(step.index - 1), confusion, step.table.names)
    seconds = time.perf_counter() - started
    method = job.method.state_dict()
    cost = {
        "seconds": round(seconds, 3),
        "peak_memory": peak_memory(session.fabric.device.type == "cuda"),
        "trained_parameters": _trained_parameters(session, step, student),
        "stored_bytes": sum(tensor.numel() * tensor.element_size() for tensor in method.values()),
    }
    line = {"kind": "step", "step": step.index, **cost, **figures, "warnings": warnings}
    run.append_metrics(line)
    run.save_state(step.index, StepState(True, seconds, method, scaler_state(session.fabric)))
    session.loggers.update()
    return line


def _trained_parameters(session: Session, step: Step, student: Segmenter) -> int:
    """Number of parameters that the updates of a step change."""
    job = session.job
    if not job.training.epochs_of(step.index) or (step.index and not job.method.updates_later_steps):
        return 0
    return sum(parameter.numel() for parameter in student.parameters() if parameter.requires_grad)


def announce(session: Session, line: dict[str, Any]) -> None:
    """Report the metrics and the warnings of a finished step.

    Args:
        line: as `record` returns it.
    """
    session.reporter.step_finished(line["step"], line)
    for text in line["warnings"]:
        session.reporter.message(f"after step {line['step']}: {text}")
