"""A continual run: the loop over steps."""

import copy
import json
import shlex
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from contseg.atomic import UnwritableError
from contseg.data.files import rescaling
from contseg.engine.allocator import kept_memory
from contseg.engine.cache import StepCache
from contseg.engine.inputs import Inputs, ignores_undecided, record_inputs, require_agreement, require_unchanged
from contseg.engine.job import Job, Reporter
from contseg.engine.measure import announce, measure_again, measure_test, record
from contseg.engine.randomness import GROW, derived_seed, deterministic, own_randomness
from contseg.engine.ranks import (
    environment,
    joined_rank,
    launch,
    make_fabric,
    own_threads,
    owned_by_rank_0,
    require_devices,
    restore_scaler,
    scaler_state,
)
from contseg.engine.recovery import recover
from contseg.engine.run import Run
from contseg.engine.samples import keep_samples
from contseg.engine.session import Session
from contseg.engine.spawned import refuse_unguarded
from contseg.engine.step import StepLearner
from contseg.engine.summary import summarise
from contseg.engine.teacher import segmenter_before, statistics_beside
from contseg.engine.waits import waiting_for
from contseg.errors import ContsegError
from contseg.evaluation.confusion import IGNORED_WARNING
from contseg.interop.imagenet import load_backbone
from contseg.interop.pretrained import open_segmenter
from contseg.interruption import Interrupted, catching
from contseg.methods.method import Method
from contseg.models.make import make_segmenter
from contseg.models.options import first_widths
from contseg.models.segmenter import Segmenter
from contseg.plugins import load_plugins
from contseg.scenarios.plan import make_plan
from contseg.scenarios.step import Step

if TYPE_CHECKING:  # it takes a second to import
    from lightning_fabric import Fabric


def train(job: Job, reporter: Reporter | None = None, *, accept_changes: bool = False) -> dict[str, Any]:
    """Run a job in its folder, from the last state saved there.

    Args:
        accept_changes: continue although recipe, data, code, weights or ranks changed since the run began. The changes are
            recorded, and shown in tables and reports.

    Returns:
        the summary, see `summarise`.

    Raises:
        ContsegError: data, options or the run are wrong, something changed since the run began, or another process trains
            in the folder; saved files are kept.
        Interrupted: a signal (Ctrl-C, SIGTERM) ended the run; the current update was finished and saved.
    """
    refuse_unguarded()
    require_devices(job.training)
    run, notes, reporter = Run(job.folder), list[str](), reporter or Reporter()
    try:
        with catching(), owned_by_rank_0(job.folder):
            inputs = Inputs.of(job, make_plan(job.scenario, job.training.batch))
            if not joined_rank():
                notes = [line for line in (require_unchanged(run, inputs, accept_changes), *recover(run)) if line]
                notes += _rescaled(job)
                notes += [f"note: {IGNORED_WARNING}"] if ignores_undecided(job.recipe) else []
                record_inputs(run, inputs)
                if run.is_finished(len(job.scenario)):  # reported before Fabric is imported, which takes a second
                    reporter.message(f"all {len(job.scenario)} steps are finished; nothing is left to train")
            fabric = make_fabric(job.training)
            if not joined_rank():
                _record_environment(run, environment(fabric, job.training.threads))
            return launch(fabric, _train_on_rank, job, reporter, inputs, notes)
    except Interrupted as stop:
        stop.resume = resume_command(job.folder)
        raise


def _record_environment(run: Run, found: dict[str, Any]) -> None:
    """Write environment.json; its date is that of the first start."""
    with suppress(ContsegError):  # damaged: it is replaced
        found = found | {"date": run.environment().get("date", found["date"])}
    run.write_text("environment.json", json.dumps(found, indent=1))


def _rescaled(job: Job) -> list[str]:
    """A line on images of more than 8 bits, from the first one; [] if the dataset creates its images."""
    dataset = job.scenario.dataset
    path = dataset.image_path(job.scenario.train_presence.names[0])
    return [f"note: {path}: {text}" for text in rescaling(path, dataset.reading)] if path.is_file() else []


def resume_command(folder: Path) -> str:
    """The command that resumes the run in a folder.

    Example:
        >>> resume_command(Path("runs/my run"))
        "contseg train --resume 'runs/my run'"
    """
    return f"contseg train --resume {shlex.quote(str(folder))}"


def _train_on_rank(fabric: "Fabric", job: Job, reporter: Reporter, inputs: Inputs, notes: list[str]) -> dict[str, Any]:
    load_plugins(job.recipe.get("plugins", []))  # a spawned rank starts without them
    session = Session.of(fabric, job, reporter)
    with waiting_for("the start"):
        fabric.barrier()  # until rank 0 has created the folder
        require_agreement(fabric, session.run, inputs)
    session.reporter.start([job.updates_of(step) for step in job.scenario])
    try:
        warnings = (session.run.plan() or {}).get("warnings", ())
        for text in (*notes, *(f"note: {warning}" for warning in warnings)):
            session.reporter.message(text)
        with (
            own_randomness(),
            deterministic(job.training.deterministic),
            own_threads(job.training.threads),
            kept_memory(fabric.device.type == "cpu"),
            waiting_for("the end"),
        ):
            return _learn_steps(session)
    finally:
        session.loggers.close()
        session.reporter.stop()


def _learn_steps(session: Session) -> dict[str, Any]:
    fabric, job, run = session.fabric, session.job, session.run
    if session.leads:
        keep_samples(session)
    last = run.last_begun()
    state = run.load_state(last) if last >= 0 else None
    run.rewind_metrics(state)
    job.method.load_state_dict({})  # clear method state from a previous run
    student: Segmenter | None = None
    for step in job.scenario:
        with waiting_for(f"step {step.index}"):
            if state and (step.index < last or (state.finished and step.index == last)):
                measure_again(session, step)
                student = None  # the next step loads it from its file
                if step.index == last:
                    job.method.load_state_dict(state.method)
                    restore_scaler(fabric, state.scaler)
                continue
            previous = segmenter_before(run, step, student)
            student = _grown(job, step, previous).to(fabric.device)
            _finish_step(session, step, student, _learn_step(session, step, student, previous))
    summary = summarise(run)
    run.finish(summary)
    session.loggers.update()
    fabric.barrier()
    return summary


def _grown(job: Job, step: Step, previous: Segmenter | None) -> Segmenter:
    """The student at the start of a step, on CPU. Draws are seeded by (seed, step), so a resume creates the same one."""
    torch.manual_seed(derived_seed(GROW, job.training.seed, step.index))
    if previous is None:
        if job.start_from is not None:
            student = open_segmenter(job.start_from)[0].train()
        else:
            student = make_segmenter(job.network, first_widths(job.network, step.seen_count))
            if job.backbone_weights:
                load_backbone(student.backbone, job.backbone_weights)
        student.reserve(job.reserved)
        return student
    student = copy.deepcopy(previous).cpu().train()
    student.freeze()  # unfreezes what the last step froze
    if step.new_count:
        student.grow(step.new_count, job.method.new_classes_start_from)
    return student


def _learn_step(session: Session, step: Step, student: Segmenter, previous: Segmenter | None) -> float:
    """Train a step, or take step 0 from `start_from` or the cache; returns the seconds spent."""
    job = session.job
    if step.index == 0 and job.start_from is not None:
        return _take_over(session, step, student)
    cache = _cache_of(session, step)
    # rank 0 decides for all, as another run may fill the cache between two checks
    recalled = cache.load(student) if session.fabric.broadcast(session.leads and _can_load(session, cache)) else None
    learner = StepLearner(session, step, student, previous)
    if recalled is not None:
        job.method.load_state_dict(recalled["method"])
        restore_scaler(session.fabric, recalled.get("scaler", {}))
        session.run.rewind_metrics(None)  # drop lines that an interrupted attempt wrote
        for line in recalled["lines"]:
            session.run.append_metrics(line)
        session.reporter.step_started(0, len(job.scenario), step.table.names, 0, "from the cache")
        return learner.finish()
    learner.learn()
    if session.leads and step.index == 0:
        lines = [line for line in session.run.metrics() if line["kind"] == "epoch" and line["step"] == 0]
        remembered = {"method": job.method.state_dict(), "scaler": scaler_state(session.fabric)}
        try:
            cache.store(student, job, remembered | {"lines": lines})
        except UnwritableError as error:
            session.reporter.message(f"step 0 is not cached: {error}")
    return learner.finish()


def _can_load(session: Session, cache: StepCache) -> bool:
    """Whether the cache has a sound result; a damaged one is reported and deleted."""
    if problem := cache.damage():
        session.reporter.message(problem)
        return False
    return cache.filled


def _cache_of(session: Session, step: Step) -> StepCache:
    """The cache of step 0; empty for later steps. The key hashes files, so rank 0 computes it for all ranks."""
    if step.index or session.job.cache is None:
        return StepCache(None, "")
    return StepCache(session.job.cache, session.fabric.broadcast(session.job.first_step_key() if session.leads else ""))


def _take_over(session: Session, step: Step, student: Segmenter) -> float:
    """Use `start_from` as step 0, without updates but with the method's other calls; returns the seconds spent."""
    job = session.job
    assert job.start_from is not None
    session.reporter.step_started(0, len(job.scenario), step.table.names, 0, f"from {job.start_from}")
    if type(job.method).load_statistics is not Method.load_statistics:  # a file that is not needed may be damaged
        job.method.load_statistics(statistics_beside(job.start_from))
    if not len(step.train):  # the method has no image to use
        return 0.0
    started = time.perf_counter()
    untrained = replace(job, training=job.training.model_copy(update={"epochs": 0}))
    learner = StepLearner(replace(session, job=untrained, reporter=Reporter()), step, student, None)
    learner.learn()
    learner.finish()
    return time.perf_counter() - started


def _finish_step(session: Session, step: Step, student: Segmenter, seconds: float) -> None:
    started = time.perf_counter() - seconds
    counts = measure_test(session, step, student)
    if session.leads:
        announce(session, record(session, step, student, counts, started))
    session.fabric.barrier()
