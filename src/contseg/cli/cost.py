"""`contseg cost`."""

import math
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from contseg.cli.console import console, progress_bar
from contseg.cli.sweep import is_description
from contseg.dryrun.cost import Cost, estimate, total
from contseg.dryrun.probe import Probe
from contseg.errors import ContsegError, counted
from contseg.plugins import load_plugins
from contseg.recipes.read import read_recipe
from contseg.recipes.recipe import Recipe
from contseg.report.log import duration
from contseg.sweeps.sweep import Sweep

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Entry:
    """A run to estimate.

    Args:
        row: runs of the same row take the same time for an image.
        recipe: of the run.
    """

    row: str
    recipe: Recipe


def run_cost(
    words: Sequence[str], overrides: list[str], device: Device | None, throughput: float | None, jobs: int | None
) -> None:
    """Estimate what runs cost, and print it.

    Args:
        words: recipes, folders with a sweep.yaml, or such files.
        overrides: of all recipes.
        device, throughput: see `estimate`.
        jobs: runs in parallel; None for one per GPU, or one.

    Raises:
        ContsegError: a recipe is invalid or cannot be trained here.
    """
    if throughput is not None and not math.isfinite(throughput):
        raise ContsegError(f"--throughput: expected images per second, such as 60 (got {throughput})")
    entries, finished = entries_of(words, overrides)
    if finished:
        console.print(f"{counted(finished, 'run')} finished and not counted", highlight=False)
    if not entries:
        return
    costs = estimated(entries, device, throughput)
    if len(entries) == 1:
        console.print(step_table(costs[0]))
        print_run(costs[0])
    else:
        console.print(sum_table(entries, costs))
        print_sum(costs, jobs or parallel_runs(entries[0].recipe, device))


def entries_of(words: Sequence[str], overrides: Sequence[str]) -> tuple[list[Entry], int]:
    """The runs that are not finished, and the number of those that are.

    Raises:
        ContsegError: see `read_recipe` and `Sweep`.
    """
    found, finished = list[Entry](), 0
    for word in words:
        path = Path(word)
        if not (path.is_dir() or is_description(path)):
            found.append(Entry(word, read_recipe(word, overrides)))
            continue
        sweep = Sweep.read(path)
        sweep = sweep.model_copy(update={"overrides": [*sweep.overrides, *overrides]})
        for cell in sweep.cells(path if path.is_dir() else path.parent):
            if cell.finished:
                finished += 1
            else:
                found.append(Entry(cell.label, cell.recipe))
    return found, finished


def estimated(entries: Sequence[Entry], device: Device | None, throughput: float | None) -> list[Cost]:
    """The cost of each run. Each row is probed once; several rows each in a process, whose peak memory is measured."""
    probes: dict[str, Probe | None] = {}
    costs: list[Cost] = []
    alone = len({entry.row for entry in entries}) == 1
    with progress_bar("runs") as progress:
        for done, entry in enumerate(entries):
            progress(done, len(entries))
            known = probes.get(entry.row)
            if alone or known or throughput is not None:
                cost = _estimate(entry.recipe, device, throughput, known)
            else:
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                    cost = pool.submit(_estimate, entry.recipe, device, throughput, known).result()
            probes[entry.row] = cost.probe
            costs.append(cost)
    return costs


def _estimate(recipe: Recipe, device: Device | None, throughput: float | None, known: Probe | None) -> Cost:
    load_plugins(recipe.plugins)
    return estimate(recipe, device=device, throughput=throughput, measured=known)


def parallel_runs(recipe: Recipe, device: Device | None) -> int:
    """Runs that have a GPU of their own here; on a CPU one, as parallel runs share the cores."""
    on_gpu = torch.cuda.is_available() and (device or recipe.training.accelerator) != "cpu"
    return max(1, torch.cuda.device_count() // recipe.training.devices) if on_gpu else 1


def shared_seconds(costs: Sequence[Cost]) -> list[float | None]:
    """Seconds of each run if step 0 is trained once for all that share it."""
    seen: set[str] = set()
    found: list[float | None] = []
    for cost in costs:
        seconds = cost.seconds
        if cost.first_step in seen and seconds is not None:
            seconds -= cost.steps[0].training or 0.0
        seen.add(cost.first_step)
        found.append(seconds)
    return found


def step_table(cost: Cost) -> Table:
    """The steps of a run."""
    table = Table(box=SIMPLE_HEAD, caption="GFLOPs: of a training image, forward and backward, with the teacher")
    for title in ("step", "images", "updates", "tests", "M params", "GFLOPs", "train", "test"):
        table.add_column(title, justify="right", no_wrap=True)
    for step in cost.steps:
        table.add_row(
            str(step.index),
            *(str(step.images), str(step.updates), str(step.tests)),
            f"{step.parameters / 1e6:.2f}",
            "-" if step.flops is None else f"{step.flops / 1e9:.3g}",
            span(step.training),
            span(step.testing),
        )
    return table


def print_run(cost: Cost) -> None:
    """Print the sums of a run."""
    rate = f" at {cost.trained_images / cost.training:.1f} images/s" if cost.training and cost.trained_images else ""
    lines = {
        "time": f"{span(cost.seconds)} (training {span(cost.training)}{rate}, tests {span(cost.testing)})",
        "operations": "-" if cost.flops is None else f"{cost.flops / 1e12:.3g} TFLOPs of training",
        "memory": f"{size(cost.memory)} per rank",
        "disk": f"{size(cost.disk)} at the end, {size(cost.working)} more while training",
    }
    for name, text in lines.items():
        console.print(f"{name}: {text}", highlight=False, soft_wrap=True)
    if cost.probe is not None:
        text = f"estimated from a few updates on {cost.probe.device}, which took {duration(cost.probe.seconds)}"
        console.print(text, highlight=False, soft_wrap=True)


def sum_table(entries: Sequence[Entry], costs: Sequence[Cost]) -> Table:
    """A row per row of the sweep, and the sum."""
    shared = shared_seconds(costs)
    table = Table(box=SIMPLE_HEAD, caption="memory: of one run; a step 0 that runs share is counted once in time")
    table.add_column("recipe", overflow="fold")
    for title in ("runs", "updates", "images", "M params", "memory", "disk", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    groups = {name: [place for place, entry in enumerate(entries) if entry.row == name] for name in dict.fromkeys(
        entry.row for entry in entries)}  # fmt: skip
    for name, places in {**groups, "sum": list(range(len(costs)))}.items():
        if name == "sum":
            table.add_section()
        chosen = [costs[place] for place in places]
        disks = total([cost.disk for cost in chosen])
        table.add_row(
            name,
            str(len(chosen)),
            str(sum(step.updates for cost in chosen for step in cost.steps)),
            str(sum(cost.trained_images for cost in chosen)),
            f"{max(cost.steps[-1].parameters for cost in chosen) / 1e6:.2f}",
            size(max((cost.memory for cost in chosen if cost.memory is not None), default=None)),
            size(disks),
            span(total([shared[place] for place in places])),
        )
    return table


def print_sum(costs: Sequence[Cost], jobs: int) -> None:
    """Print the wall-clock time of all runs, `jobs` in parallel."""
    seconds = shared_seconds(costs)
    whole = total(seconds)
    wall = None if whole is None else max(whole / jobs, *(one for one in seconds if one is not None))
    console.print(f"wall-clock time: {span(wall)} with {counted(jobs, 'run')} in parallel", highlight=False, soft_wrap=True)


def span(seconds: float | None) -> str:
    """A time span as text; a dash for None."""
    return "-" if seconds is None else duration(seconds)


def size(count: float | None) -> str:
    """Bytes as text; a dash for None.

    Example:
        >>> size(2_340_000_000), size(3_000_000), size(None)
        ('2.34 GB', '3 MB', '-')
    """
    if count is None:
        return "-"
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
