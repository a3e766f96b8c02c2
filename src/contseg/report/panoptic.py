"""Panoptic quality in a report: means, classes after each step, and pictures of segments."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from contseg.data.classes import IGNORE
from contseg.data.segments import SegmentMap
from contseg.report import figures as draw
from contseg.report.segment_map import draw_segments
from contseg.report.tables import FOLDED, Facts, shade, together

QUALITIES = {"pq": "PQ", "sq": "SQ", "rq": "RQ"}
GROUPS = ("old", "new", "past", "current", "things", "stuff", "all")
PICTURE_SIDE = 240
"""Shorter sides of small images are enlarged by a whole number up to this length, so that lines between objects are thin."""


def panoptic_tables(runs: Mapping[str, Facts]) -> dict[str, Any] | None:
    """What the section on segments shows; None where no run measured them.

    Returns:
        `means`: run to rows of title and the mean of each of `GROUPS`, None where it was not measured; `classes`, see
        `_class_tables`; `pictures`, see `_picture_tables`; `groups`.
    """
    measured = {name: facts for name, facts in runs.items() if facts["panoptic"]}
    if not measured:
        return None
    return {
        "groups": GROUPS,
        "means": {name: _means(facts["panoptic"]) for name, facts in runs.items()},
        "classes": _class_tables(measured),
        "pictures": _picture_tables(measured),
    }


def _means(figures: Mapping[str, Any] | None) -> list[tuple[str, list[float | None], float | None]]:
    """Title, means by group, and forgetting of each quality."""
    return [
        (
            title,
            [None if figures is None else figures[key][group] for group in GROUPS],
            None if figures is None else figures[key].get("forgetting"),
        )
        for key, title in QUALITIES.items()
    ]


def _class_tables(runs: Mapping[str, Facts]) -> list[dict[str, Any]]:
    """For all runs with the same classes: `runs`, `rows` with PQ after each step, SQ and RQ at the end; `folded`."""
    tables = []
    for group in together(runs, lambda facts: (tuple(facts["classes"]), facts["groups"])):
        first = next(iter(group.values()))
        things = first["samples"]["things"] if "things" in first["samples"] else np.zeros(len(first["classes"]), dtype=bool)
        rows = [
            {
                "name": name,
                "step": first["groups"][place],
                "kind": "thing" if things[place] else "stuff",
                "runs": [_class_in_run(place, facts["panoptic"]) for facts in group.values()],
            }
            for place, name in enumerate(first["classes"])
            if place >= int(first["background"])
        ]
        tables.append({"runs": group, "rows": rows, "folded": len(rows) > FOLDED})
    return tables


def _class_in_run(place: int, figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cells of a class: PQ after each step, then SQ and RQ after the last one."""
    steps = [one["pq"]["classes"] for one in figures["steps"]]
    lists = [*steps, figures["sq"]["classes"], figures["rq"]["classes"]]
    values = [(place < len(one), one[place] if place < len(one) else None) for one in lists]
    return [{"known": known, "value": value, "shade": shade(value or 0)} for known, value in values]


def _picture_tables(runs: Mapping[str, Facts]) -> list[dict[str, Any]]:
    """For all runs with the same sample images: `runs`; `steps`; `images`, each with name, `truth`, and the pictures of each
    run after each step."""
    stored = {
        name: facts for name, facts in runs.items() if any("segments0" in step for step in facts["predictions"])
    }  # fmt: skip
    tables = []
    for group in together(stored, lambda facts: _key(facts["samples"])):
        samples = next(iter(group.values()))["samples"]
        images = [_image(number, samples, group) for number in range(len(samples["names"]))]
        steps = max(len(facts["predictions"]) for facts in group.values())
        tables.append({"runs": group, "images": images, "steps": steps})
    return tables


def _image(number: int, samples: Mapping[str, np.ndarray], runs: Mapping[str, Facts]) -> dict[str, Any]:
    pixels, truth = samples[f"image{number}"], samples[f"truth{number}"]
    classes = np.where(np.isin(truth, samples["void"]), IGNORE, truth)
    true = SegmentMap(classes.astype(np.int64), samples[f"instances{number}"])
    found = [
        [
            _drawn(pixels, SegmentMap.of_ids(step[f"segments{number}"], step[f"kinds{number}"].tolist()), samples)
            if f"segments{number}" in step
            else None
            for step in facts["predictions"]
        ]
        for facts in runs.values()
    ]
    return {
        "name": str(samples["names"][number]),
        "image": draw.photo(pixels),
        "truth": _drawn(pixels, true, samples),
        "runs": found,
    }


def _drawn(pixels: np.ndarray, segments: SegmentMap, samples: Mapping[str, np.ndarray]) -> str:
    """A picture of segments over the image, which is grey and faint where there is none, as a data URI."""
    times = max(1, PICTURE_SIDE // min(pixels.shape[:2]))
    large = [np.repeat(np.repeat(one, times, 0), times, 1) for one in (pixels, segments.classes, segments.numbers)]
    inside = ((large[1] >= 0) & (large[1] < len(samples["things"])))[..., None]
    faint = np.where(inside, large[0], 128 + large[0].mean(axis=2, keepdims=True) / 2).astype(np.uint8)
    drawn = draw_segments(faint, SegmentMap(large[1], large[2]), samples["colours"], samples["things"], share=0.7)
    return draw.photo(drawn)


def _key(samples: Mapping[str, np.ndarray]) -> Hashable:
    return tuple(sorted((name, values.tobytes()) for name, values in samples.items()))
