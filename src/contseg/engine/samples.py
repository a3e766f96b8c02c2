"""A few test images, predicted after every step, so that a report shows what the run learned and forgot."""

import numpy as np
from PIL import Image
from torch import Tensor

from contseg.data.classes import IGNORE, UNDECIDED
from contseg.engine.job import Job
from contseg.engine.session import Session
from contseg.evaluation.predict import predict_with_doubt
from contseg.evaluation.segments import measures_segments, predict_segments
from contseg.models.segmenter import Segmenter
from contseg.scenarios.step import Step

COUNT = 6
"""Number of images that are chosen for their classes, and of images that are drawn."""
DOUBT_SIDE = 160
"""Longest side of the maps of doubt."""


def chosen_names(job: Job) -> list[str]:
    """Test images that cover many classes: each next image adds the most missing classes (ties: list order)."""
    presence = job.scenario.test_presence
    rows = {name: row for row, name in enumerate(presence.names)}
    names = list(job.scenario[-1].test.names)
    there = presence.pixels[[rows[name] for name in names]] > 0
    missing = np.ones(there.shape[1], dtype=bool)
    chosen: list[int] = []
    for _ in range(min(COUNT, len(names))):
        gain = (there & missing).sum(axis=1)
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        missing &= ~there[best]
        if not missing.any():
            missing[:] = True
    return [names[row] for row in chosen]


def drawn_names(job: Job, without: list[str]) -> list[str]:
    """Other test images, drawn with seed 0: the same in all runs with the same test images."""
    left = sorted(set(job.scenario[-1].test.names) - set(without))
    places = np.random.default_rng(0).permutation(len(left))[:COUNT]
    return [left[place] for place in places]


def keep_samples(session: Session) -> None:
    """Write the sample images, cut as in evaluation, with their labels after the last step, class names and colours.

    `drawn` marks the images that were drawn at random. Data with objects has their numbers, and which classes are things and
    which values are void.
    """
    job = session.job
    table = job.scenario[-1].table
    chosen = chosen_names(job)
    drawn = drawn_names(job, chosen)
    arrays: dict[str, np.ndarray] = {
        "names": np.array([*chosen, *drawn]),
        "drawn": np.array([False] * len(chosen) + [True] * len(drawn)),
        "classes": np.array(table.names),
        "colours": np.array(table.colours, dtype=np.uint8),
    }
    test, objects = job.scenario[-1].test, job.scenario.dataset.has_instances
    if objects:
        arrays |= {"things": table.is_thing, "void": np.array([IGNORE, *table.void_outputs])}
    for number, name in enumerate(arrays["names"]):
        image, layers = job.scenario.dataset.read_layers(str(name))
        pixels, layers = job.evaluation_pipeline(image, layers, np.random.default_rng(0))
        arrays[f"image{number}"] = pixels.permute(1, 2, 0).contiguous().numpy()
        labels = arrays[f"truth{number}"] = test.labels(layers)
        if objects and (numbers := test.instances(layers, labels)) is not None:
            arrays[f"instances{number}"] = numbers
    session.run.save_arrays("samples.npz", **arrays)


def keep_predictions(session: Session, step: Step, segmenter: Segmenter) -> None:
    """Write the predictions for the sample images after a step, and small maps of their entropy and margin (0 to 255).

    Where panoptic quality is measured also the segments: the place of each pixel's segment, and the class of each.
    """
    job, training = session.job, segmenter.training
    segmenter.eval()
    arrays, inference = {}, job.inference_at(step)
    objects = measures_segments(job.scenario.dataset, segmenter)
    chosen = chosen_names(job)
    for number, name in enumerate([*chosen, *drawn_names(job, chosen)]):
        image, mask = job.scenario.dataset.read(name)
        pixels, _ = job.evaluation_pipeline(image, {"mask": mask}, np.random.default_rng(0))
        seen = pixels.permute(1, 2, 0).contiguous().numpy()
        predicted, entropy, margin = predict_with_doubt(segmenter, seen, inference)
        arrays[f"prediction{number}"] = predicted.masked_fill(predicted == UNDECIDED, IGNORE).cpu().numpy().astype(np.uint8)
        if objects:
            (found,) = predict_segments(segmenter, pixels[None].to(segmenter.mean.device), step.table, inference)
            arrays[f"segments{number}"] = found.ids.cpu().numpy().astype(np.int16)  # fewer than queries
            arrays[f"kinds{number}"] = np.array(found.classes, dtype=np.int64)
        arrays[f"entropy{number}"], arrays[f"margin{number}"] = _small(entropy), _small(margin)
    segmenter.train(training)
    session.run.save_arrays(f"steps/{step.index:02d}/predictions.npz", **arrays)


def _small(values: Tensor) -> np.ndarray:
    """A map (H, W) of values in [0, 1] as uint8, at most `DOUBT_SIDE` pixels long."""
    pixels = Image.fromarray((values.float().clamp(0, 1) * 255).round().byte().cpu().numpy())
    scale = min(1.0, DOUBT_SIDE / max(pixels.size))
    width, height = (max(1, round(scale * side)) for side in pixels.size)
    return np.asarray(pixels.resize((width, height), Image.Resampling.BOX))
