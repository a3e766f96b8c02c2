"""A continual run: the loop over steps."""

import copy
import json
import os
import platform
import shlex
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from contseg.engine.cache import StepCache
from contseg.engine.job import Job, Reporter
from contseg.engine.measure import keep_confusion, measure_again, measure_step
from contseg.engine.randomness import GROW, derived_seed, own_randomness
from contseg.engine.ranks import joined_rank, launch, make_fabric, own_threads, restore_scaler, scaler_state
from contseg.engine.recorded import require_same_data
from contseg.engine.run import Run
from contseg.engine.samples import keep_predictions, keep_samples
from contseg.engine.spawned import refuse_unguarded
from contseg.engine.step import StepLearner
from contseg.engine.teacher import segmenter_before
from contseg.engine.tensorboard import write_events
from contseg.evaluation.alarms import background_warnings
from contseg.evaluation.metrics import domain_figures, run_figures, step_figures
from contseg.evaluation.remarks import domain_remarks, run_remarks, step_remarks
from contseg.interop.imagenet import load_backbone
from contseg.interop.pretrained import open_segmenter
from contseg.interop.segmenter_file import save_segmenter
from contseg.interruption import Interrupted, catching
from contseg.models.options import first_widths
from contseg.models.segmenter import Segmenter
from contseg.plugins import load_plugins
from contseg.scenarios.plan import make_plan
from contseg.scenarios.step import Step


def train(job: Job, reporter: Reporter | None = None) -> dict[str, Any]:
    """Run a job in its folder, from the last state that was saved there; returns the summary.

    Raises:
        ContsegError: for anything wrong with data, options or the run, or if the data is not what the run began with; what
            was saved stays.
        Interrupted: a signal ended it, Ctrl-C or SIGTERM; the update that was being made is saved.
    """
    refuse_unguarded()
    fabric, run, note = make_fabric(job.training), Run(job.folder), ""
    if not joined_rank():
        plan = make_plan(job.scenario, job.training.batch)
        note = require_same_data(run, plan)
        if run.plan() is None:
            run.write_text("plan.json", plan.to_json())
        run.write_text("environment.json", json.dumps(environment(fabric, job.training.threads), indent=1))
    try:
        with catching():
            return launch(fabric, _train_on_rank, job, reporter or Reporter(), note)
    except Interrupted as stop:
        stop.resume = f"contseg train --resume {shlex.quote(str(job.folder))}"
        raise


def _train_on_rank(fabric: Fabric, job: Job, reporter: Reporter, note: str) -> dict[str, Any]:
    load_plugins(job.recipe.get("plugins", []))  # a rank of its own has imported nothing yet
    leads = fabric.global_rank == 0
    run = Run(job.folder)
    fabric.barrier()  # rank 0 has made the folder
    if leads:
        reporter.start()
    try:
        if leads:
            for text in (*([note] if note else []), *(f"note: {one}" for one in (run.plan() or {}).get("warnings", ()))):
                reporter.message(text)
        with own_randomness(), own_threads(job.training.threads):
            summary = _learn_all(fabric, job, run, reporter)
    finally:
        if leads:
            reporter.stop()
    return summary


def _learn_all(fabric: Fabric, job: Job, run: Run, reporter: Reporter) -> dict[str, Any]:
    leads = fabric.global_rank == 0
    plan = run.plan() or {}
    if leads:
        keep_samples(run, job)
    last = run.last_begun()
    state = run.load_state(last) if last >= 0 else None
    if leads:
        run.rewind_metrics(state)
    job.method.load_state_dict({})  # what it remembers of another run is not this one's
    student: Segmenter | None = None
    for step in job.scenario:
        if state and (step.index < last or (state["finished"] and step.index == last)):
            measure_again(fabric, job, step, run, reporter)
            student = None  # read from its file by the next step
            if step.index == last:
                job.method.load_state_dict(state["method"])
                restore_scaler(fabric, state.get("scaler", {}))
            continue
        teacher = segmenter_before(run, step, student)
        student = _grown(job, step, teacher)
        student.to(fabric.device)
        seconds = _learn_or_recall(fabric, job, step, student, teacher, run, reporter)
        _finish_step(fabric, job, step, student, run, reporter, seconds, plan.get("hash", ""))
    summary = summarise(run)
    if leads:
        run.write_text("summary.json", json.dumps(summary, indent=1))
    fabric.barrier()
    return summary


def _grown(job: Job, step: Step, previous: Segmenter | None) -> Segmenter:
    """The student at the start of a step, on CPU; draws come from (seed, step), so a resume grows the same."""
    torch.manual_seed(derived_seed(GROW, job.training.seed, step.index))
    if previous is None and job.start_from is not None:
        return open_segmenter(job.start_from)[0].train()
    if previous is None:
        student = Segmenter(job.network, first_widths(job.network, step.seen_count))
        if job.backbone_weights:
            load_backbone(student.backbone, job.backbone_weights)
        return student
    student = copy.deepcopy(previous).cpu().train()
    student.freeze()  # what the last step froze may learn again
    if step.new_count:
        student.grow(step.new_count, job.method.new_classes_start_from)
    return student


def _learn_or_recall(
    fabric: Fabric, job: Job, step: Step, student: Segmenter, teacher: Segmenter | None, run: Run, reporter: Reporter
) -> float:
    """Train the step, or take step 0 from the cache or as it was given; returns the seconds it took here."""
    if step.index == 0 and job.start_from is not None:
        return _take_over(fabric, job, step, student, run, reporter)
    shared = job.cache is not None and step.index == 0
    cache = StepCache(job.cache if shared else None, job.first_step_key() if shared else "")
    # rank 0 looks for all: another run may fill the cache between two looks
    recalled = cache.load(student) if fabric.broadcast(cache.filled) else None
    if recalled is not None:
        job.method.load_state_dict(recalled["method"])
        restore_scaler(fabric, recalled.get("scaler", {}))
        if fabric.global_rank == 0:
            run.rewind_metrics(None)  # a run that was cut off may have told of these epochs already
            for line in recalled["lines"]:
                run.append_metrics(line)
            reporter.step_started(0, len(job.scenario), step.table.names, 0, "from the cache")
        return 0.0
    needs_teacher = job.method.needs_teacher and teacher is not None
    learner = StepLearner(fabric, job, step, student, teacher if needs_teacher else None, run, reporter)
    seconds = learner.learn()
    if fabric.global_rank == 0 and step.index == 0:
        lines = [line for line in run.metrics() if line["kind"] == "epoch" and line["step"] == 0]
        remembered = {"method": job.method.state_dict(), "scaler": scaler_state(fabric)}
        cache.store(student, job, remembered | {"lines": lines})
    return seconds


def _take_over(fabric: Fabric, job: Job, step: Step, student: Segmenter, run: Run, reporter: Reporter) -> float:
    """Step 0 as it was given: no update, but the method looks at it as it would after training; returns the seconds."""
    if fabric.global_rank == 0:
        reporter.step_started(0, len(job.scenario), step.table.names, 0, f"from {job.start_from}")
    if not len(step.train):  # nothing to look at
        return 0.0
    started = time.perf_counter()
    untrained = replace(job, training=job.training.model_copy(update={"epochs": 0}))
    StepLearner(fabric, untrained, step, student, None, run, Reporter()).learn()
    return time.perf_counter() - started


def _finish_step(
    fabric: Fabric, job: Job, step: Step, student: Segmenter, run: Run, reporter: Reporter, seconds: float, plan_hash: str
) -> None:
    """Measure the step on its test set and write everything; the state that says `finished` comes last."""
    started = time.perf_counter()
    leads = fabric.global_rank == 0
    by_domain = measure_step(fabric, job, step, student, reporter)
    confusion = by_domain.sum(axis=0)
    if leads:
        names, annotated = step.table.names, step.test.annotated
        figures = step_figures(confusion, job.scenario.groups, job.scenario.has_background)
        figures["notes"] = step_remarks(confusion, job.scenario.groups, job.scenario.has_background, names, annotated)
        source = {"recipe": job.recipe.get("name", ""), "step": step.index, "plan": plan_hash}
        if job.start_from is not None:
            source["start_from"] = str(job.start_from)
        folder = run.step_folder(step.index)
        save_segmenter(folder / "segmenter.safetensors", student, step.table, source)
        keep_predictions(run, job, step, student)
        keep_confusion(run, job, step, by_domain)
        spent = seconds + time.perf_counter() - started
        warnings: list[str] = []
        if step.index and job.scenario.has_background:
            warnings = background_warnings(run.confusion(step.index - 1), confusion, step.table.names)
        line = {"kind": "step", "step": step.index, "seconds": round(spent, 3), **figures, "warnings": warnings}
        run.append_metrics(line)
        remembered = {"method": job.method.state_dict(), "scaler": scaler_state(fabric)}
        run.save_state(step.index, {"finished": True, "seconds": spent, **remembered})
        write_events(run)
        reporter.step_finished(step.index, figures)
        for text in warnings:
            reporter.message(f"after step {step.index}: {text}")
    fabric.barrier()


def summarise(run: Run) -> dict[str, Any]:
    """The figures of a run, recomputed from its confusion matrices, in percent; and the seconds it took.

    A figure that was not measured is None, and `notes` says why; `measured` and `pixels` say what the others are over.
    """
    measured = run.confusions(), run.groups(), run.has_background()
    figures, notes = run_figures(*measured), run_remarks(*measured, *run.tested())
    seconds = sum(line["seconds"] for line in run.metrics() if line["kind"] == "step")
    percent = {
        key: None if figures[key] is None else round(100 * figures[key], 4)
        for key in (
            "old", "new", "all", "average", "forgetting", "harmonic", "old_with_background", "all_with_background",
            "average_with_background", "accuracy",
        )
    }  # fmt: skip
    domains, more = _domain_percents(run)
    return {
        **percent,
        **domains,
        "measured": figures["measured"],
        "pixels": figures["pixels"],
        "notes": notes | more,
        "seconds": round(seconds, 1),
        "steps": len(run.confusions()),
        "plan": (run.plan() or {}).get("hash", ""),
    }


def _domain_percents(run: Run) -> tuple[dict[str, Any], dict[str, str]]:
    """The figures per domain after the last step, in percent, and remarks; nothing where the scenario has no domains."""
    names, confusions = run.domain_confusions()
    if not names:
        return {}, {}
    figures = domain_figures(confusions, run.has_background())
    last, forgetting = figures["domains"][-1], figures["domain_forgetting"]
    percents = {
        "domains": {
            name: None if np.isnan(value) else round(100 * float(value), 4) for name, value in zip(names, last, strict=True)
        },
        "domain_forgetting": None if forgetting is None else round(100 * forgetting, 4),
    }
    return percents, domain_remarks(figures, names)


def environment(fabric: Fabric, threads: int | None) -> dict[str, Any]:
    """Versions and the machine, for the report."""
    device = torch.cuda.get_device_name() if fabric.device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "ranks": fabric.world_size,
    }
