"""Batches for a training loop of your own, the same as in the engine."""

import torch

from contseg.data.pipelines.augment import WholeImage, training_pipeline
from contseg.engine.loading import Batches, epoch_draws, evaluation_draws
from contseg.engine.options import TrainingOptions
from contseg.scenarios.batch import Pool
from contseg.scenarios.step import Step


def training_batches(
    step: Step,
    epoch: int,
    *,
    batch: int,
    crop: int,
    pipeline: str = "mib",
    flip: float = 0.5,
    seed: int = 0,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Batches:
    """The batches of an epoch: the images of a step and its memory in random order, cropped at random.

    Args:
        epoch: number of the epoch, which seeds order and augmentation.
        batch: images per batch. An incomplete last batch is dropped; a step with fewer images repeats some.
        crop: side in pixels.
        pipeline: name in `contseg.data.pipelines.augment.PIPELINES`.
        flip: probability of a horizontal flip.
        seed: seeds all random draws, together with the index of the step and the epoch.
        workers: processes that read images; 0 reads in this process.

    Raises:
        ContsegError: the pipeline is unknown, or (when iterated) a file cannot be read.
    """
    pool = Pool((step.train, *step.memory))
    draws = epoch_draws(len(pool), TrainingOptions(batch=batch, seed=seed), step.index, epoch)
    dataset = step.train.dataset
    cut = training_pipeline(pipeline, crop, flip, mirror=dataset.mirror, void=dataset.classes.void)
    return Batches(pool, cut, draws, seed=seed, step=step.index, device=torch.device(device), workers=workers)


def evaluation_batches(step: Step, *, device: torch.device | str = "cpu", workers: int = 0) -> Batches:
    """The test images of a step at their own size, one per batch, for `contseg.evaluation.predict.evaluate`."""
    draws = evaluation_draws(len(step.test), 1, WholeImage())
    return Batches(step.test, WholeImage(), draws, seed=0, step=step.index, device=torch.device(device), workers=workers)
