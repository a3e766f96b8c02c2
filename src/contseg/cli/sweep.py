"""`contseg sweep`."""

import itertools
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from contseg.cli.console import console
from contseg.cli.plugins import with_plugins
from contseg.cli.sweep_progress import CLOCK, CLOCK_MARK, SweepProgress, read_clock
from contseg.errors import ContsegError, counted
from contseg.interruption import Interrupted
from contseg.parsing import parse_yaml
from contseg.replaceable import require_replaceable
from contseg.sweeps.page import FIGURES, Page, Results, kept_notes, page, read_results, result_warnings, spread, write
from contseg.sweeps.runs import Row, cells_of, tasks_of, train_all


def run_sweep(
    words: Sequence[str],
    settings: Sequence[str],
    seeds: str,
    out: Path,
    workers: int | None,
    overwrite: bool,
    plugins: list[str],
    accept_changes: bool = False,
) -> None:
    """Train recipes x settings x seeds, print mean and standard deviation over the seeds, and write `sweep.md`.

    Args:
        words: recipes, and overrides that apply to all of them.
        settings: KEY=VALUE,VALUE: a row for each value, or for each combination if there are several settings.
        seeds: separated by commas.
        workers: processes in parallel; None for one per core.
        overwrite: replace runs in `out` that have another recipe.
        plugins: plugins of every recipe.
        accept_changes: resume runs although data or code changed since they began; the page marks them.

    Raises:
        ContsegError: a recipe, a setting or a seed is invalid, `out` contains other files, or, at the end, runs failed.
        Interrupted: a signal ended the sweep; all runs are saved.
    """
    overrides = [word for word in words if "=" in word and not Path(word).is_file()]
    recipes = [word for word in words if word not in overrides]
    if not recipes:
        raise ContsegError("sweep: name at least one recipe (list the packaged ones with: contseg recipes)")
    options = [*(("--set", setting) for setting in settings), ("--seeds", seeds)]
    options += [("--workers", str(workers))] if workers else []
    options += [*(("--plugin", plugin) for plugin in plugins), ("--out", str(out))]
    command = shlex.join(["contseg", "sweep", *words, *itertools.chain(*options), *(["--overwrite"] if overwrite else [])])
    sweep = Page(
        command=command,
        title=f"Sweep of {', '.join(recipes)}",
        caption="Old: the classes of step 0; new: the classes of all later steps.",
        sections={"Results": rows_of(recipes, settings, chosen_seeds(seeds), with_plugins(overrides, plugins))},
    )
    kept_notes(out / "sweep.md")  # checked before anything is trained
    require_replaceable(out / CLOCK, CLOCK_MARK)
    try:
        problems = train_rows(sweep.rows, [], out, workers or os.cpu_count() or 1, overwrite, accept_changes)
    except Interrupted as stop:
        stop.resume = command + " --accept-changes" * accept_changes
        raise
    results = write_page(sweep, out / "sweep.md", [], out)
    console.print(result_table(sweep.rows, results))
    if problems:
        raise ContsegError(
            f"sweep: {counted(len(problems), 'run')} failed, as listed above; repeat the command to try them again"
        )


def rows_of(
    recipes: Sequence[str], settings: Sequence[str], seeds: tuple[int, ...], overrides: Sequence[str] = ()
) -> dict[str, Row]:
    """Every recipe with every combination of the settings: name of the row, which is its folder, to row.

    Args:
        overrides: overrides of every recipe, which are not part of the names.

    Raises:
        ContsegError: a setting is invalid, or two rows have the same name.

    Example:
        >>> [row.label for row in rows_of(["digits/mib_5-1"], ["training.lr=0.1,0.2"], (0,)).values()]
        ['digits/mib_5-1 training.lr=0.1', 'digits/mib_5-1 training.lr=0.2']
        >>> list(rows_of(["digits/mib_5-1"], ["training.lr=0.1"], (0,)))
        ['digits-mib_5-1,training.lr=0.1']
    """
    rows: dict[str, Row] = {}
    for recipe, *chosen in itertools.product(recipes, *map(values_of, settings)):
        short = recipe.removesuffix(".yaml")
        name = re.sub(r"[^\w.,=+-]", "-", ",".join([short, *chosen]))
        if name in rows:
            raise ContsegError(f"sweep: '{recipe}' is listed twice as {name}; remove one of them")
        rows[name] = Row(" ".join([recipe, *chosen]), recipe, (*chosen, *overrides), seeds)
    return rows


def values_of(setting: str) -> list[str]:
    """The overrides of a setting, one per value.

    Raises:
        ContsegError: not KEY=VALUE,VALUE.

    Example:
        >>> values_of("training.epochs=[9, 5],3"), values_of("network.backbone=resnet18")
        (['training.epochs=[9, 5]', 'training.epochs=3'], ['network.backbone=resnet18'])
    """
    key, equals, text = setting.partition("=")
    try:
        values = parse_yaml(f"[{text}]", "--set") if key and equals else None
    except ContsegError:
        values = None
    if not values:
        raise ContsegError(f"--set: '{setting}': expected KEY=VALUE,VALUE, such as training.lr=0.1,0.01")
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for value in values]


def chosen_seeds(text: str) -> tuple[int, ...]:
    """Seeds from a text, separated by commas.

    Raises:
        ContsegError: they are not whole numbers.

    Example:
        >>> chosen_seeds("1, 0")
        (0, 1)
    """
    seeds = [part.strip() for part in text.split(",") if part.strip()]
    if not seeds or not all(seed.isdecimal() and len(seed) <= 18 for seed in seeds):
        raise ContsegError(f"--seeds: expected whole numbers separated by commas, such as 0,1,2 (got '{text}')")
    return tuple(sorted({int(seed) for seed in seeds}))


def train_rows(
    rows: Mapping[str, Row],
    overrides: Sequence[str],
    out: Path,
    workers: int,
    overwrite: bool = True,
    accept_changes: bool = False,
) -> dict[str, str]:
    """Train all unfinished runs, and print a line when one ends.

    Args:
        accept_changes: see `train_all`.

    Returns:
        Title and error of every run that failed.

    Raises:
        ContsegError: see `tasks_of` and `train_all`.
    """
    cells = cells_of(rows, overrides, out)
    with console.status("checking recipes and runs"):
        tasks = tasks_of(cells, overwrite)
    if not tasks:
        return {}
    progress = SweepProgress(tasks, len(cells) - len(tasks), len(cells), out)
    try:
        return train_all(tasks, out, workers, progress, accept_changes=accept_changes)
    finally:
        progress.stop()


def write_page(sweep: Page, path: Path, overrides: Sequence[str], out: Path) -> Results:
    """Write the page of the finished runs and print its path; returns the results."""
    results = read_results(cells_of(sweep.rows, overrides, out))
    write(path, page(sweep, results, overrides, read_clock(out / CLOCK), kept_notes(path)))
    console.print(f"page: {path}", soft_wrap=True, markup=False)
    for warning in result_warnings(results):
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    return results


def result_table(rows: Mapping[str, Row], results: Results) -> Table:
    """Mean and standard deviation over the finished seeds of every row."""
    table = Table(caption="mIoU in %, background not counted: mean ± standard deviation over n seeds")
    table.add_column("recipe", overflow="fold")
    for title in (*FIGURES, "n"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, row in rows.items():
        found = [results[name, seed].figures for seed in row.seeds if (name, seed) in results]
        means = (spread([value for figures in found if (value := figures[key]) is not None]) for key in FIGURES)
        table.add_row(row.label, *means, str(len(found)))
    return table
