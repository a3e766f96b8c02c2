"""The sums of panoptic quality that a run has in metrics.jsonl, and the figures that follow from them."""

from typing import Any

import numpy as np

from contseg.engine.run import Run
from contseg.evaluation.panoptic import PanopticCounts, panoptic_run


def panoptic_sums(run: Run) -> tuple[list[PanopticCounts], np.ndarray]:
    """The sums after each finished step, and which classes are things (bool) after the last.

    [] where they were not measured after every step.

    Raises:
        ContsegError: metrics.jsonl is damaged.
    """
    lines = {line["step"]: line.get("panoptic") for line in run.metrics() if line["kind"] == "step"}
    found = [lines.get(step) for step in range(run.finished_steps())]
    measured = [one for one in found if one is not None]
    if not measured or len(measured) < len(found):
        return [], np.zeros(0, dtype=bool)
    return [PanopticCounts.of_json(one["sums"]) for one in measured], np.array(measured[-1]["things"], dtype=bool)


def panoptic_of(run: Run) -> dict[str, Any] | None:
    """The figures of `panoptic_run`, recomputed from the sums; None where panoptic quality was not measured."""
    counts, things = panoptic_sums(run)
    return panoptic_run(counts, run.groups(), things, run.has_background()) if counts else None
