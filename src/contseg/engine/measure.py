"""A finished step is measured on its test set, and measured again where its figures were lost."""

import numpy as np
from lightning_fabric import Fabric

from contseg.engine.devices import workers_of
from contseg.engine.job import Job, Reporter
from contseg.engine.loading import Batches, evaluation_draws
from contseg.engine.ranks import ranks_of, shard_of
from contseg.engine.run import STEP_ARRAYS, Run
from contseg.engine.samples import keep_predictions
from contseg.errors import ContsegError
from contseg.evaluation.predict import evaluate_domains
from contseg.interop.segmenter_file import load_segmenter
from contseg.models.segmenter import Segmenter
from contseg.scenarios.step import Step


def measure_step(fabric: Fabric, job: Job, step: Step, student: Segmenter, reporter: Reporter) -> np.ndarray:
    """The confusion matrices of a step on its test set, over all ranks: (domains, K, K), one domain where there are none."""
    pipeline, shard = job.evaluation_pipeline, shard_of(fabric)
    batches = Batches(
        step.test,
        pipeline,
        evaluation_draws(len(step.test), job.training.batch, pipeline, shard),
        seed=0,
        step=step.index,
        device=fabric.device,
        workers=workers_of(job.training),
    )
    leads = fabric.global_rank == 0
    if leads:
        reporter.evaluating(len(batches))
    domains = job.scenario.domains or ("",)
    domain_of = job.scenario.dataset.domain_of if job.scenario.domains else lambda name: ""
    told = reporter.evaluated if leads else None
    counts = evaluate_domains(student, batches, step.seen_count, domains, domain_of, told, job.inference_at(step))
    return ranks_of(fabric).sum(counts).cpu().numpy()


def keep_confusion(run: Run, job: Job, step: Step, by_domain: np.ndarray) -> None:
    """Write the confusion matrices of a step, as `measure_step` gives them."""
    run.save_arrays(
        f"steps/{step.index:02d}/confusion.npz",
        confusion=by_domain.sum(axis=0),
        groups=np.array(job.scenario.groups),
        background=np.array(job.scenario.has_background),
        names=np.array(step.table.names, dtype=str),
        annotated=step.test.annotated,
        domains=np.array(job.scenario.domains, dtype=str),
        by_domain=by_domain[: len(job.scenario.domains)],
    )


def measure_again(fabric: Fabric, job: Job, step: Step, run: Run, reporter: Reporter) -> None:
    """Make what a finished step lacks, from its segmenter: the confusion matrix, the predictions for the sample images.

    Raises:
        ContsegError: the segmenter is lost too, or is of other classes.
    """
    leads = fabric.global_rank == 0
    lost = fabric.broadcast([name for name in STEP_ARRAYS if not run.is_readable(f"steps/{step.index:02d}/{name}")])
    if not lost:
        return
    path = run.segmenter_path(step.index)
    if not path.is_file():
        raise ContsegError(
            f"{path}: not found, and needed to measure step {step.index} again, as {lost[0]} is missing or damaged; put one"
            " of the two back, or start over with --overwrite"
        )
    segmenter, classes = load_segmenter(path)
    if classes.names != step.table.names:
        raise ContsegError(
            f"{path}: knows {', '.join(classes.names)} where step {step.index} ends with {', '.join(step.table.names)};"
            " put back the file that this run wrote"
        )
    if leads:
        reporter.message(f"step {step.index}: {' and '.join(lost)} missing or damaged, made again from its segmenter")
    segmenter.to(fabric.device)
    by_domain = measure_step(fabric, job, step, segmenter, reporter)
    if leads:
        keep_confusion(run, job, step, by_domain)
        keep_predictions(run, job, step, segmenter)
    fabric.barrier()
