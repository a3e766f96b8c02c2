"""How costs grow with classes, steps, pixels and images, with fitted exponents; and what a second process brings.

    python -m benchmarks.scaling              # into benchmarks/results-scaling.json, docs/performance.md and the plot
    python -m benchmarks.scaling --only-page  # the page and the plot of what is kept

Seconds are processor time of one thread, which other programs hardly change. Every point is kept as soon as it is
measured; stopped and started again, it continues. An exponent is the slope of the line
of least squares through the logarithms: 1 is linear, and above 1 is worse.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.page import NOT_MEASURED, PAGE, markdown, number, write_block
from benchmarks.presence import Counted, planning
from benchmarks.results import FOLDER, Results, described, origin
from benchmarks.steps import DEFAULT, Setting, TrainingStep
from benchmarks.timing import Work, timed
from contseg.engine.loading import epoch_draws
from contseg.engine.options import TrainingOptions
from contseg.models.options import NetworkOptions

RESULTS = FOLDER / "results-scaling.json"
PLOT = Path("docs") / "images" / "scaling.png"
SMALL = NetworkOptions(backbone={"name": "resnet18", "width": 32}, head={"width": 128})
BASE = replace(DEFAULT, network=SMALL, crop=128)
"""A small network, so that the part that grows is not hidden by the one that does not."""
WORST = 1.1
"""Exponents up to this one count as linear: small sizes are dominated by what does not grow, large ones by the caches."""


@dataclass(frozen=True)
class Curve:
    """Seconds of a work at several sizes.

    Args:
        title: the work.
        size: what grows.
        values: sizes.
        make: makes the work of a size.
        remark: why it grows as it does.
    """

    title: str
    size: str
    values: tuple[int, ...]
    make: Callable[[int], Work]
    remark: str = ""


def with_classes(method: str, classes: int, base: Setting = BASE) -> Work:
    """A training step with so many classes, of which 5 are new."""
    return TrainingStep(method, replace(base, old=classes - 5, new=5)).update


def with_steps(method: str, steps: int, base: Setting = BASE) -> Work:
    """A training step in the last of so many steps, with 84 classes."""
    return TrainingStep(method, replace(base, old=80, new=4, growths=steps - 1)).update


def with_side(method: str, pixels: int, base: Setting = BASE) -> Work:
    """A training step on square images of so many pixels."""
    return TrainingStep(method, replace(base, crop=round(pixels**0.5))).update


def plan_of(images: int) -> Work:
    """The plan of 20 classes in 6 steps from presence tables of so many training images."""
    return planning(Counted(classes=20, train=images), "15-1", 6)


def draws_of(images: int) -> Work:
    """The order of an epoch of so many images."""
    options = TrainingOptions(batch=24)
    return lambda: epoch_draws(images, options, step=1, epoch=3)


SIDES = (128**2, 256**2, 512**2)
IMAGES = (10_000, 100_000, 1_000_000)
CURVES = {
    **{
        f"{kind}, {method}": Curve(f"training step of {title}", kind, values, partial(make, method))
        for kind, values, make in (
            ("classes", (21, 151, 1001), with_classes),
            ("steps", (2, 11, 41), with_steps),
            ("pixels", SIDES, with_side),
        )
        for method, title in (("mib", "MiB"), ("plop", "PLOP"), ("idec", "IDEC"))
    },
    "images, plan": Curve(
        "plan of 6 steps from presence tables", "images", IMAGES, plan_of, "names and tables outgrow the processor's cache"
    ),
    "images, draws": Curve(
        "order of an epoch", "images", IMAGES, draws_of, "linear without Python's garbage collector, which visits the draws"
    ),
}


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log(seconds) over log(size), by least squares.

    Example:
        >>> round(exponent([1, 10, 100], [2, 20, 200]), 3), round(exponent([1, 10], [3, 300]), 3)
        (1.0, 2.0)
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def measure_all(results: Results, curves: Mapping[str, Curve], repeats: int = 5) -> None:
    """Measure the points that the file does not have from this commit and machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = origin()
    for name, curve in curves.items():
        for value in curve.values:
            key = f"{name}, {value}"
            if results.is_current(key, made):
                continue
            work = curve.make(value)
            timed(work)
            seconds = median(timed(work, time.process_time) for _ in range(repeats))
            results.keep(key, {"value": seconds}, made)
            print(f"{key}: {seconds:.4f} s", flush=True)
    torch.set_num_threads(threads)


def points(results: Results, name: str, curve: Curve) -> dict[int, float]:
    """Measured sizes and their seconds."""
    return {value: kept["value"] for value in curve.values if (kept := results[f"{name}, {value}"])}


TRAIN = (
    "train", "digits/finetune_5-1", "data.options={train: 160, test: 10, size: 128}", "data.crop=128",
    "network.backbone=resnet18", "network.width=64", "scenario.split=5-5", "training.epochs=[3, 1]",
    "training.threads=1", "training.workers=0", "training.loggers=[]", "training.accelerator=cpu", "--no-cache",
)  # fmt: skip
BATCH = 8


def trained(processes: int, arguments: Sequence[str] = TRAIN) -> float:
    """Images per second of a run with so many processes of one thread each and 8 images per process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "contseg", *arguments, f"training.batch={BATCH * processes}"]
        command += [f"training.devices={processes}", "--out", f"{folder}/run"]
        subprocess.run(command, check=True, capture_output=True)
        lines = map(json.loads, (Path(folder) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        epochs = [line for line in lines if line.get("kind") == "epoch" and line["step"] == 0]
    return median(line["images_per_second"] for line in epochs[1:])  # the first one has the start of the processes


def measure_processes(results: Results, pairs: int = 3, arguments: Sequence[str] = TRAIN) -> None:
    """Images per second of one and of two processes, in turn."""
    made = origin()
    if results.is_current("processes", made):
        return
    found = [(trained(1, arguments), trained(2, arguments)) for _ in range(pairs)]
    efficiency = median(two / one / 2 for one, two in found)
    figures = {"value": efficiency, "one": median(one for one, _ in found), "two": median(two for _, two in found)}
    results.keep("processes", figures, made)
    print(f"2 processes: efficiency {efficiency:.2f}", flush=True)


def scaling_block(results: Results, curves: Mapping[str, Curve] = CURVES) -> str:
    """The table of seconds and exponents, and the efficiency of two processes."""
    rows, sources = [], {}
    for name, curve in curves.items():
        found = points(results, name, curve)
        complete = len(found) == len(curve.values)
        slope = exponent([*found], [*found.values()]) if complete else None
        seconds = ", ".join(number(found.get(value)) for value in curve.values)
        sizes = ", ".join(f"{value:,}" for value in curve.values)
        remark = curve.remark or ("worse than linear" if slope is not None and slope > WORST else "")
        rows.append([curve.title, curve.size, sizes, seconds, NOT_MEASURED if slope is None else f"{slope:.2f}", remark])
        sources |= {described(kept["origin"]): None for value in found if (kept := results[f"{name}, {value}"])}
    parts = [markdown(["work", "grows with", "sizes", "seconds of one thread", "exponent", ""], rows)]
    if kept := results["processes"]:
        parts.append(
            f"Two processes with one thread each train {kept['two']:.1f} images per second, one trains {kept['one']:.1f}: an"
            f" efficiency of\n{kept['value']:.0%} (ResNet-18, crop 128, {BATCH} images per process, fine-tuning; norms"
            " share their statistics)."
        )
    else:
        parts.append("Efficiency of two processes: -")
    return "\n\n".join([*parts, *(["\n".join(f"* {one}" for one in sources)] if sources else [])])


def draw(results: Results, path: Path, curves: Mapping[str, Curve] = CURVES) -> None:
    """A panel for each size, with seconds over it on logarithmic axes and the exponents in the legend."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = list(dict.fromkeys(curve.size for curve in curves.values()))
    figure, panels = pyplot.subplots(1, len(sizes), figsize=(3.4 * len(sizes), 3.4), squeeze=False)
    for panel, size in zip(panels[0], sizes, strict=True):
        for name, curve in curves.items():
            found = points(results, name, curve)
            if curve.size == size and len(found) == len(curve.values):
                label = f"{curve.title}: {exponent([*found], [*found.values()]):.2f}"
                panel.plot([*found], [*found.values()], marker="o", label=label)
                panel.legend(fontsize=7)
        panel.set(xscale="log", yscale="log", xlabel=size)
        values = next(curve.values for curve in curves.values() if curve.size == size)
        panel.set_xticks(values, [f"{value:,}" for value in values])
        panel.xaxis.minorticks_off()
    panels[0][0].set_ylabel("seconds")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the page and the plot; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.partition("\n")[0])
    parser.add_argument("--only-page", action="store_true", help="measure nothing, write the page of what is kept")
    options = parser.parse_args(arguments)
    results = Results(RESULTS)
    if not options.only_page:
        measure_all(results, CURVES)
        measure_processes(results)
    write_block("scaling", scaling_block(results), PAGE)
    draw(results, PLOT)
    print(scaling_block(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
