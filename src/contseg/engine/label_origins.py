"""Where the labels of a later step come from: some of its training images with the given labels and the final ones."""

from dataclasses import replace

import numpy as np
import torch

from contseg.engine.loading import Batches, evaluation_draws
from contseg.engine.run import ORIGINS
from contseg.engine.session import Session
from contseg.methods.mask_relabelling import painted
from contseg.methods.method import Method, StepContext
from contseg.ranks import Ranks
from contseg.scenarios.step import Step

COUNT = 4
"""Number of images, which are drawn with seed 0 from those of the step."""


@torch.no_grad()
def keep_label_origins(session: Session, step: Step, context: StepContext) -> None:
    """Write training images of a step, cut as in evaluation, with their labels before and after `Method.relabel`.

    Where networks classify masks, labels afterwards are `painted`.

    Does nothing in a step without pseudo labels. To be called after the last update, before `Method.after_step`.

    Arrays: `names`; `image0`, ... (H, W, 3) uint8; `given0`, ... and `final0`, ... (H, W) uint8, ids of outputs;
    `unknown`, whether the first output is "unknown".
    """
    method = session.job.method
    if not session.leads or context.predict_teacher is None or type(method).relabel is Method.relabel:
        return
    places = np.random.default_rng(0).permutation(len(step.train))[:COUNT]
    samples = replace(step.train, names=tuple(step.train.names[place] for place in sorted(places)))
    pipeline, device = session.job.evaluation_pipeline, session.fabric.device
    draws = evaluation_draws(len(samples), 1, pipeline)
    alone = replace(context, ranks=Ranks(), generator=torch.Generator(), labels_of_update=None, batches_of_update=None)
    arrays: dict[str, np.ndarray] = {"names": np.array(samples.names), "unknown": np.array(step.has_unknown)}
    for number, batch in enumerate(Batches(samples, pipeline, draws, seed=0, step=step.index, device=device)):
        final = method.relabel(batch, context.predict_teacher(batch), alone)
        arrays[f"image{number}"] = batch.images[0].permute(1, 2, 0).contiguous().cpu().numpy()
        arrays[f"given{number}"] = batch.labels[0].cpu().numpy().astype(np.uint8)
        arrays[f"final{number}"] = painted(final)[0].cpu().numpy().astype(np.uint8)
    session.run.save_arrays(f"steps/{step.index:02d}/{ORIGINS}", **arrays)
