"""The sample images of a report, with the predictions of several runs after each step."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from contseg.data.classes import IGNORE
from contseg.report import figures as draw
from contseg.report.tables import Facts, html_colour, together

Image = dict[str, Any]


def sample_tables(runs: Mapping[str, Facts]) -> list[dict[str, Any]]:
    """Sample images for all runs with the same images, truth and classes.

    Returns:
        of each table `runs`; `images`, see `_image`; `drawn`, the number of images that were drawn at random; `legend`, the
        classes that occur in truth or predictions; `others`, the other classes; `steps`, the highest number of finished
        steps of a run.
    """
    tables = []
    for group in together(runs, lambda facts: _fingerprint(facts["samples"])):
        samples = next(iter(group.values()))["samples"]
        images = [_image(number, samples, group) for number in range(len(samples["names"]))]
        seen = set().union(*(image["classes"] for image in images))
        colours = draw.palette(samples["colours"])
        legend = [(str(name), html_colour(colours[number])) for number, name in enumerate(samples["classes"])]
        tables.append(
            {
                "runs": group,
                "images": images,
                "drawn": sum(image["drawn"] for image in images),
                "legend": [entry for number, entry in enumerate(legend) if number in seen],
                "others": [entry for number, entry in enumerate(legend) if number not in seen],
                "steps": max(len(facts["predictions"]) for facts in group.values()),
            }
        )
    return tables


def _image(number: int, samples: Mapping[str, np.ndarray], runs: Mapping[str, Facts]) -> Image:
    """An image on the page.

    Returns:
        `name`; `image` and `truth` as data URIs; `classes`, ids in truth and predictions; `drawn`; `runs`, the predictions
        of each run after each step, see `_prediction`; `right` and `lost`, the means over the runs at the end, None if not
        measured.
    """
    truth, colours = samples[f"truth{number}"], samples["colours"]
    found = [
        [_prediction(number, truth, step, facts, colours) for step in range(len(facts["predictions"]))]
        for facts in runs.values()
    ]
    ends = [steps[-1] for steps in found if steps[-1]]
    ids = [step[f"prediction{number}"] for facts in runs.values() for step in facts["predictions"] if _has(step, number)]
    return {
        "name": str(samples["names"][number]),
        "image": draw.photo(samples[f"image{number}"]),
        "truth": draw.label_map(truth, colours),
        "classes": set(np.unique(np.concatenate([each.ravel() for each in (truth, *ids)])).tolist()),
        "drawn": bool(samples["drawn"][number]) if "drawn" in samples else False,
        "runs": found,
        "right": _mean([end["right"] for end in ends]),
        "lost": _mean([end["lost"] for end in ends]),
    }


def _prediction(number: int, truth: np.ndarray, step: int, facts: Facts, colours: np.ndarray) -> Image | None:
    """A prediction after a step; None if the run did not store it.

    Returns:
        `picture` and, if the run stored them, `entropy` and `margin` as data URIs; `right`, the share of the labelled
        pixels of classes known by then; `lost`, the share of the labelled pixels of classes known before this step that
        were right after an earlier step and are wrong now. Both are None without such pixels.
    """
    stored = facts["predictions"]
    if not _has(stored[step], number):
        return None
    labelled = truth != IGNORE
    known = [labelled & (truth < len(iou)) for iou in facts["iou"]]
    right = [
        known[at] & (each[f"prediction{number}"] == truth)
        for at, each in enumerate(stored[: step + 1])
        if _has(each, number)
    ]
    once = np.logical_or.reduce(right[:-1]) if right[:-1] else None
    return {
        "picture": draw.label_map(stored[step][f"prediction{number}"], colours),
        "right": _share(right[-1], known[step]),
        "lost": None if once is None else _share(once & ~right[-1], known[step - 1]),
        **{
            kind: draw.grey(stored[step][f"{kind}{number}"])
            for kind in ("entropy", "margin")
            if f"{kind}{number}" in stored[step]
        },
    }


def _has(step: Mapping[str, np.ndarray], number: int) -> bool:
    return f"prediction{number}" in step


def _share(part: np.ndarray, whole: np.ndarray) -> float | None:
    return float((part & whole).sum() / whole.sum()) if whole.any() else None


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None


def _fingerprint(samples: Mapping[str, np.ndarray]) -> Hashable:
    return tuple((name, str(values.dtype), values.shape, values.tobytes()) for name, values in sorted(samples.items()))
