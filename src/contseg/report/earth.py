"""The maps of the Earth in the report of `contseg demo`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from contseg.data.classes import IGNORE
from contseg.report.figures import png_uri
from contseg.report.tables import Facts, html_colour


def earth_table(runs: Mapping[str, Facts]) -> dict[str, Any] | None:
    """The maps of all runs that have some, or None: `image`, `truth`, `legend`, `single` (run to the map of its only step)
    and `several` (run to its map after each step), as data URIs.
    """
    maps = {name: facts["maps"] for name, facts in runs.items() if facts["maps"]}
    if not maps:
        return None
    first = next(iter(maps.values()))
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(first["colours"])] = first["colours"]
    palette[IGNORE] = first["colours"][0]
    drawn = {
        name: [
            png_uri(palette[arrays[f"step{number}"]]) for number in range(runs[name]["steps"]) if f"step{number}" in arrays
        ]
        for name, arrays in maps.items()
    }
    return {
        "image": png_uri(first["image"]),
        "truth": png_uri(palette[first["truth"]]),
        "legend": [
            (str(name), html_colour(colour)) for name, colour in zip(first["classes"], first["colours"], strict=True)
        ],
        "single": {name: steps[0] for name, steps in drawn.items() if len(steps) == 1},
        "several": {name: steps for name, steps in drawn.items() if len(steps) > 1},
    }
