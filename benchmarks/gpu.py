"""What a GPU does: the ratios of `make bench`, and images per second, memory and hours of published sizes.

    python -m benchmarks.gpu    # into benchmarks/results-gpu.json and docs/performance.md; continues where it was stopped

Without a GPU it ends with exit code 2. ResNet-101 at output stride 16, crop 512, 21 classes, mixed precision with bf16,
channels last.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.page import NOT_MEASURED, PAGE, bench_block, markdown, number, write_block
from benchmarks.results import FOLDER, Results, described, origin
from benchmarks.rows import ROWS, measurement
from benchmarks.steps import DEFAULT, Setting, TrainingStep
from benchmarks.timing import in_pairs, timed
from contseg.engine.options import TrainingOptions
from contseg.errors import ContsegError
from contseg.models.options import NetworkOptions
from contseg.recipes.read import read_recipe

RESULTS = FOLDER / "results-gpu.json"
RATIOS = (
    "mib-losses", "plop-losses", "pod", "idec-losses", "sdr-losses", "idrnet-step",
    "finetune-step", "mib-step", "plop-step", "sdr-step", "idec-step", "lag-step", "evaluation",
)  # fmt: skip
"""Rows whose tensors are made on PyTorch's default device."""
BATCHES = (24, 12)
SPLIT, TESTS = "15-1", 1449
"""Of VOC; every step is tested on its images."""
FAST = TrainingOptions(lr=1e-4, lr_later=1e-4, precision="bf16-mixed", channels_last=True)
RESNET101 = replace(DEFAULT, network=NetworkOptions(backbone="resnet101"), training=FAST)


@dataclass(frozen=True)
class Case:
    """A method whose absolute figures are measured.

    Args:
        title: in the table.
        method: its name.
        recipe: of VOC, from which its epochs come.
        network: changes of the network.
    """

    title: str
    method: str
    recipe: str
    network: Mapping[str, Any]


CASES = {
    "mib": Case("MiB", "mib", f"voc/mib_{SPLIT}_overlapped", {}),
    "plop": Case("PLOP", "plop", f"voc/plop_{SPLIT}_overlapped", {}),
    "sdr": Case("SDR", "sdr", f"voc/sdr_{SPLIT}_overlapped", {}),
    "idec": Case("IDEC", "idec", f"voc/idec_{SPLIT}_overlapped", {}),
    "lag": Case("LAG", "lag", f"voc/lag_{SPLIT}_overlapped", {}),
    "idrnet": Case(
        "MiB with IDRNet over FCN", "mib", f"voc/mib_{SPLIT}_overlapped", {"head": {"name": "fcn", "idrnet": {}}}
    ),
}


def images_of_steps() -> list[int]:
    """Training images of each step of VOC 15-1 overlapped, as published."""
    text = (files("contseg.scenarios") / "published_selections.json").read_text(encoding="utf-8")
    rows = [row for row in json.loads(text)["rows"] if (row["dataset"], row["task"], row["mode"]) == ("voc", SPLIT, "train")]
    return [row["count"] for row in sorted(rows, key=lambda row: row["step"]) if row["overlap"]]


def hours(case: Case, batch: int, first: float, later: float, test: float) -> float:
    """Hours of all steps of VOC 15-1: updates, and a test after each step; reading images is assumed to be faster.

    Args:
        first, later: seconds of an update in step 0 and in later steps.
        test: seconds per test image.
    """
    training, total = read_recipe(case.recipe).training, 0.0
    for step, images in enumerate(images_of_steps()):
        updates = training.epochs_of(step) * max(1, images // batch)
        total += updates * (later if step else first) + TESTS * test
    return total / 3600


def absolute(case: Case, setting: Setting, repeats: int = 10) -> dict[str, Any]:
    """Figures of a method: images per second, share of the bare networks' throughput, peak GiB, hours of VOC 15-1.

    Args:
        setting: with the batch and the device.
    """
    device = torch.device(setting.device)
    changed = replace(setting, network=setting.network.changed(**case.network))
    first = TrainingStep(case.method, replace(changed, index=0))
    first_seconds = median_seconds(first.update, repeats)
    test_seconds = median_seconds(partial(_predict, first), repeats) / setting.images
    del first
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    step = TrainingStep(case.method, changed)
    later_seconds = median_seconds(step.update, repeats)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    found = in_pairs(step.update, step.bare, repeats)
    return {
        "value": setting.images / later_seconds,
        "share of bare": 1 / found.ratio,
        "GiB": peak,
        "hours": hours(case, setting.images, first_seconds, later_seconds, test_seconds),
        "seconds": [first_seconds, later_seconds, test_seconds],
    }


def median_seconds(work: Any, repeats: int) -> float:
    """Median of several runs after two to warm up."""
    timed(work)
    timed(work)
    return median(timed(work) for _ in range(repeats))


@torch.no_grad()
def _predict(step: TrainingStep) -> None:
    """Forward pass and arg max at full size, in evaluation mode."""
    student = step.updater.student.eval()
    with step.updater.fabric.autocast():
        output = student(step._normalised)
    student.scores(output.logits_at(step.batch.size)).argmax(dim=1)
    student.train()


def ratio_on(name: str, device: str) -> dict[str, Any] | None:
    """The figures of a row of `make bench` on a device; None if nothing measures it here."""
    row = ROWS[name]
    work = measurement(row)
    if work is None:
        return None
    with torch.device(device):
        pair = work()
    found = in_pairs(*pair, max(row.pairs, 10))
    return {"value": found.ratio, "lowest": found.lowest, "highest": found.highest, "pairs": found.pairs}


def measure_all(device: str, results: Results, setting: Setting = RESNET101, batches: Sequence[int] = BATCHES) -> None:
    """Measure all figures that the file does not have from this commit and machine."""
    made = origin()
    for name in RATIOS:
        if not results.is_current(name, made):
            started = time.perf_counter()
            if figures := ratio_on(name, device):
                results.keep(name, figures, made)
                print(f"{name}: {figures['value']:.3f} ({time.perf_counter() - started:.0f} s)", flush=True)
    for batch in batches:
        for name, case in CASES.items():
            key = f"{name}, batch {batch}"
            if results.is_current(key, made):
                continue
            try:
                figures = absolute(case, replace(setting, images=batch, device=device))
            except torch.OutOfMemoryError:
                figures = {"value": None, "note": "does not fit into the memory"}
            results.keep(key, figures, made)
            print(key, figures, flush=True)


def gpu_block(results: Results) -> str:
    """The table of absolute figures; cells are empty until a GPU has been measured."""
    lines, sources = [], {}
    for batch in BATCHES:
        for name, case in CASES.items():
            kept = results[f"{name}, batch {batch}"]
            if kept is None:
                lines.append([case.title, batch, "", "", "", ""])
                continue
            sources[described(kept["origin"])] = None
            share = kept.get("share of bare")
            lines.append(
                [
                    case.title,
                    batch,
                    kept.get("note") or number(kept["value"]),
                    NOT_MEASURED if share is None else f"{share:.0%}",
                    number(kept.get("GiB")),
                    number(kept.get("hours")),
                ]
            )
    titles = ["method", "batch", "images/s", "share of the bare networks' throughput", "peak GiB", "hours of VOC 15-1"]
    return "\n\n".join([markdown(titles, lines), *(["\n".join(f"* {one}" for one in sources)] if sources else [])])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the page; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--only-page", action="store_true", help="measure nothing, write the page of what is kept")
    parser.add_argument("--page", type=Path, default=PAGE, help="page with the tables")
    options = parser.parse_args(arguments)
    results = Results(RESULTS)
    if not (options.only_page or torch.cuda.is_available()):
        print("benchmarks.gpu: PyTorch finds no GPU here; run it on a machine with one", file=sys.stderr)
        return 2
    try:
        if not options.only_page:
            measure_all("cuda", results)
        write_block("gpu", gpu_block(results), options.page)
        write_block("bench", bench_block(Results(FOLDER / "results.json"), results), options.page)
    except ContsegError as error:
        print(error, file=sys.stderr)
        return 1
    print(gpu_block(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
