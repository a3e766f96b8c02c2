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
from contseg.engine.loading import Batches, evaluation_draws
from contseg.engine.randomness import GROW, derived_seed, own_randomness
from contseg.engine.ranks import (
    joined_rank,
    launch,
    make_fabric,
    own_threads,
    ranks_of,
    restore_scaler,
    scaler_state,
    shard_of,
)
from contseg.engine.run import Run
from contseg.engine.samples import keep_predictions, keep_samples
from contseg.engine.spawned import refuse_unguarded
from contseg.engine.step import StepLearner
from contseg.engine.teacher import segmenter_before
from contseg.engine.tensorboard import write_events
from contseg.evaluation.alarms import background_warnings
from contseg.evaluation.metrics import domain_figures, run_figures, step_figures
from contseg.evaluation.predict import evaluate_domains
from contseg.interop.imagenet import load_backbone
from contseg.interop.pretrained import open_segmenter
from contseg.interop.segmenter_file import save_segmenter
from contseg.interruption import Interrupted, catching
from contseg.models.segmenter import Segmenter, first_widths
from contseg.scenarios.plan import make_plan
from contseg.scenarios.step import Step


def train(job: Job, reporter: Reporter | None = None) -> dict[str, Any]:
    """Run a job in its folder, from wherever the folder says it stands; returns the summary.

    Raises:
        ContsegError: for anything wrong with data, options or the run; what was saved stays.
        Interrupted: a signal ended it, Ctrl-C or SIGTERM; the update that was being made is saved.
    """
    refuse_unguarded()
    fabric = make_fabric(job.training)
    if not joined_rank():
        Run(job.folder).write_text("environment.json", json.dumps(environment(fabric, job.training.threads), indent=1))
    try:
        with catching():
            return launch(fabric, _train_on_rank, job, reporter or Reporter())
    except Interrupted as stop:
        stop.resume = f"contseg train --resume {shlex.quote(str(job.folder))}"
        raise


def _train_on_rank(fabric: Fabric, job: Job, reporter: Reporter) -> dict[str, Any]:
    leads = fabric.global_rank == 0
    run = Run(job.folder)
    fabric.barrier()  # rank 0 has made the folder
    if leads:
        reporter.start()
    try:
        with own_randomness(), own_threads(job.training.threads):
            summary = _learn_all(fabric, job, run, reporter)
    finally:
        if leads:
            reporter.stop()
    return summary


def _learn_all(fabric: Fabric, job: Job, run: Run, reporter: Reporter) -> dict[str, Any]:
    leads = fabric.global_rank == 0
    plan = make_plan(job.scenario, job.training.batch)
    if leads:
        run.write_text("plan.json", plan.to_json())
        keep_samples(run, job)
        run.rewind_metrics(_last_state(run, len(job.scenario)))
    job.method.load_state_dict({})  # what it remembers of another run is not this one's
    student: Segmenter | None = None
    for step in job.scenario:
        state = run.load_state(step.index)
        if state and state["finished"]:
            student = None  # read from its file by the next step
            job.method.load_state_dict(state["method"])
            restore_scaler(fabric, state.get("scaler", {}))
            continue
        teacher = segmenter_before(run, step, student)
        student = _grown(job, step, teacher)
        student.to(fabric.device)
        seconds = _learn_or_recall(fabric, job, step, student, teacher, run, reporter)
        _finish_step(fabric, job, step, student, run, reporter, seconds, plan.hash)
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
    student.hold()  # what the last step froze may learn again
    if step.new_count:
        student.grow(step.new_count, job.method.new_classes_start_from)
    return student


def _learn_or_recall(
    fabric: Fabric, job: Job, step: Step, student: Segmenter, teacher: Segmenter | None, run: Run, reporter: Reporter
) -> float:
    """Train the step, or take step 0 from the cache or as it was given; returns the seconds it took here."""
    if step.index == 0 and job.start_from is not None:
        return _take_over(fabric, job, step, student, run, reporter)
    cache = StepCache(job.cache if step.index == 0 else None, job.first_step_key() if step.index == 0 else "")
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
    pipeline, shard = job.evaluation_pipeline, shard_of(fabric)
    batches = Batches(
        step.test,
        pipeline,
        evaluation_draws(len(step.test), job.training.batch, pipeline, shard),
        seed=0,
        step=step.index,
        device=fabric.device,
        workers=job.training.workers,
    )
    leads = fabric.global_rank == 0
    if leads:
        reporter.evaluating(len(batches))
    domains = job.scenario.domains or ("",)
    domain_of = job.scenario.dataset.domain_of if job.scenario.domains else lambda name: ""
    told = reporter.evaluated if leads else None
    counts = evaluate_domains(student, batches, step.seen_count, domains, domain_of, told, job.inference_at(step))
    by_domain = ranks_of(fabric).sum(counts).cpu().numpy()
    confusion = by_domain.sum(axis=0)
    if leads:
        figures = step_figures(confusion, job.scenario.groups, job.scenario.has_background)
        source = {"recipe": job.recipe.get("name", ""), "step": step.index, "plan": plan_hash}
        if job.start_from is not None:
            source["start_from"] = str(job.start_from)
        folder = run.step_folder(step.index)
        save_segmenter(folder / "segmenter.safetensors", student, step.table, source)
        keep_predictions(run, job, step, student)
        name = f"steps/{step.index:02d}/confusion.npz"
        run.save_arrays(
            name,
            confusion=confusion,
            groups=np.array(job.scenario.groups),
            background=np.array(job.scenario.has_background),
            domains=np.array(job.scenario.domains, dtype=str),
            by_domain=by_domain[: len(job.scenario.domains)],
        )
        spent = seconds + time.perf_counter() - started
        warnings: list[str] = []
        if step.index and job.scenario.has_background:
            warnings = background_warnings(run.confusions()[step.index - 1], confusion, step.table.names)
        line = {"kind": "step", "step": step.index, "seconds": round(spent, 3), **figures, "warnings": warnings}
        run.append_metrics(line)
        remembered = {"method": job.method.state_dict(), "scaler": scaler_state(fabric)}
        run.save_state(step.index, {"finished": True, "seconds": spent, **remembered})
        write_events(run)
        reporter.step_finished(step.index, figures)
        for text in warnings:
            reporter.message(f"after step {step.index}: {text}")
    fabric.barrier()


def _last_state(run: Run, steps: int) -> dict[str, Any] | None:
    """The newest state of a run."""
    states = (run.load_state(step) for step in reversed(range(steps)))
    return next((state for state in states if state), None)


def summarise(run: Run) -> dict[str, Any]:
    """The figures of a run, recomputed from its confusion matrices, in percent; and the seconds it took."""
    figures = run_figures(run.confusions(), run.groups(), run.has_background())
    seconds = sum(line["seconds"] for line in run.metrics() if line["kind"] == "step")
    percent = {
        key: None if figures[key] is None else round(100 * figures[key], 4)
        for key in (
            "old", "new", "all", "average", "forgetting", "harmonic", "old_with_background", "all_with_background",
            "average_with_background", "accuracy",
        )
    }  # fmt: skip
    plan = json.loads((run.folder / "plan.json").read_text(encoding="utf-8"))
    percent |= _domain_percents(run)
    return {**percent, "seconds": round(seconds, 1), "steps": len(run.confusions()), "plan": plan["hash"]}


def _domain_percents(run: Run) -> dict[str, Any]:
    """The figures per domain after the last step, in percent; nothing where the scenario has no domains."""
    names, confusions = run.domain_confusions()
    if not names:
        return {}
    figures = domain_figures(confusions, run.has_background())
    last = figures["domains"][-1]
    return {
        "domains": {
            name: None if np.isnan(value) else round(100 * float(value), 4) for name, value in zip(names, last, strict=True)
        },
        "domain_forgetting": round(100 * figures["domain_forgetting"], 4),
    }


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
