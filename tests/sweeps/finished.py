"""A sweep whose runs were never trained: random confusion matrices in the folders of its cells."""

import json
from pathlib import Path

import numpy as np

from contseg.engine.run import Run
from contseg.engine.summary import summarise
from contseg.evaluation.panoptic import PanopticCounts
from contseg.recipes.read import to_yaml
from contseg.sweeps.sweep import Sweep
from tests.report.pages import made_run

NAMES, GROUPS = ["background", "cat", "dog", "<b>cow</b>", "bird"], [0, 0, 0, 1, 2]
MACHINE = {
    "python": "3",
    "torch": "2",
    "numpy": "2",
    "system": "Linux",
    "device": "a GPU",
    "date": "2026-11-27T05:10:37+00:00",
}


def measure_segments(run: Run, seed: int) -> None:
    """Add random sums of panoptic quality to a finished run; objects of cat and bird are distinguished."""
    rng, lines = np.random.default_rng(seed), run.metrics()
    for line in lines:
        if line["kind"] == "step":
            known = len(run.arrays(f"steps/{line['step']:02d}/confusion.npz")["confusion"])
            hits = rng.integers(1, 9, known)
            sums = np.stack([hits, *rng.integers(0, 9, (2, known)), hits * rng.uniform(0.5, 1, known)])
            things = [name in ("cat", "bird") for name in NAMES[:known]]
            line["panoptic"] = {"sums": PanopticCounts.of_array(sums).as_json(), "things": things}
    run.write_text("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    run.write_text("summary.json", json.dumps(summarise(run)))


def finished_sweep(folder: Path, sweep: Sweep, left_out: int = 0) -> list[Run]:
    """Write the sweep and its runs, but the last `left_out`."""
    sweep.write(folder)
    cells = sweep.cells(folder)
    runs = []
    for number, cell in enumerate(cells[: len(cells) - left_out]):
        steps = GROUPS if cell.recipe.scenario.split != "offline" else [0] * len(GROUPS)
        run = made_run(cell.folder, NAMES, steps, seed=number)
        lines = [line | ({"peak_memory": 5e8 + number, "trained_parameters": 1234, "stored_bytes": 2_000_000}
                         if line["kind"] == "step" else {}) for line in run.metrics()]  # fmt: skip
        run.write_text("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        run.write_text("recipe.yaml", to_yaml(cell.recipe))
        run.write_text("environment.json", json.dumps(MACHINE))
        run.write_text("summary.json", json.dumps(summarise(run)))
        runs.append(run)
    return runs
