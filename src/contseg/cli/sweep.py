"""`contseg sweep`."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rich.table import Table

from contseg.cli.console import console
from contseg.cli.sweep_progress import CLOCK, CLOCK_MARK, SweepProgress, read_clock
from contseg.differences import differences, differences_text
from contseg.errors import ContsegError, counted, did_you_mean
from contseg.interruption import Interrupted
from contseg.parsing import parse_yaml
from contseg.replaceable import require_replaceable
from contseg.report.page import MARK
from contseg.sweeps.beside import Kind
from contseg.sweeps.cells import Cell, Row, cells_of
from contseg.sweeps.description import repeated
from contseg.sweeps.local import LocalExecutor
from contseg.sweeps.outcomes import QUALITY
from contseg.sweeps.page import FIGURES, Page, Results, kept_notes, page, read_results, result_warnings, spread, write
from contseg.sweeps.report import PAGE, write_sweep_report
from contseg.sweeps.runs import Executor, Leader, tasks_of
from contseg.sweeps.slurm import SlurmExecutor, options_of
from contseg.sweeps.sweep import FILE, MOST, Sweep

OPTIONS = {"seeds": "--seeds", "orders": "--orders", "vary": "--vary", "beside": "--with", "plugins": "--plugin"}
"""Field of `Sweep` to the option of the command line."""
MOST_RUNS = 1000
"""Runs of a sweep without --yes."""


@dataclass(frozen=True, kw_only=True)
class Ways:
    """How the runs of a sweep are trained.

    Args:
        jobs: runs in parallel; None for one per GPU, or one per core without GPUs.
        slurm: options of sbatch, KEY=VALUE; None trains on this machine.
        overwrite: replace runs that have another recipe.
        accept_changes: continue runs whose recipe, data or code changed.
        yes: allow more than `MOST_RUNS` runs.
    """

    jobs: int | None = None
    slurm: Sequence[str] | None = None
    overwrite: bool = False
    accept_changes: bool = False
    yes: bool = False

    @property
    def words(self) -> list[str]:
        """The options of the command line."""
        flags = {"--overwrite": self.overwrite, "--accept-changes": self.accept_changes, "--yes": self.yes}
        words = ["--jobs", str(self.jobs)] if self.jobs else []
        if self.slurm is not None:
            words += ["--on", "slurm", *(word for text in self.slurm for word in ("--slurm", text))]
        return [*words, *(flag for flag, given in flags.items() if given)]

    def executor(self, cells: Sequence[Cell], out: Path) -> Executor:
        """Where the runs of some cells are trained.

        Raises:
            ContsegError: see `SlurmExecutor`.
        """
        cache = out / "cache"
        if self.slurm is None:
            return LocalExecutor(cells, cache, self.jobs, self.accept_changes)
        return SlurmExecutor(cells, out, cache, options_of(self.slurm), self.jobs, self.accept_changes)


def run_sweep(sweep: Sweep, out: Path, ways: Ways) -> None:
    """Train all runs of a sweep, print mean and standard deviation, and write `sweep.yaml`, `sweep.md` and `sweep.html`.

    Raises:
        ContsegError: a recipe, a setting or a seed is invalid, `out` contains another sweep or other files, or, at the end,
            runs failed.
        Interrupted: a signal ended the sweep; all runs are saved.
    """
    rows = sweep.rows()
    count = sum(len(row.runs()) for row in rows.values())
    if count > MOST_RUNS and not ways.yes:
        raise ContsegError(f"sweep: {count} runs, more than {MOST_RUNS}; lower --seeds or --orders, or add --yes")
    require_same_sweep(sweep, out)
    command = shlex.join(["contseg", "sweep", str(out / FILE), *ways.words])
    shown = Page(
        command=command,
        title=f"Sweep of {', '.join(sweep.recipes)}",
        caption="Old: the classes of step 0; new: the classes of all later steps.",
        sections={"Results": rows},
    )
    kept_notes(out / "sweep.md")  # checked before anything is trained
    require_replaceable(out / CLOCK, CLOCK_MARK)
    require_replaceable(out / PAGE, MARK)
    try:
        problems = train_rows(rows, [], out, ways, sweep)
    except Interrupted as stop:
        stop.resume = command
        raise
    results = write_page(shown, out / "sweep.md", [], out)
    console.print(result_table(rows, results))
    for title, problem in problems.items():
        console.print(f"failed: {title}: {problem}", highlight=False, markup=False, soft_wrap=True)
    if results:
        report = write_sweep_report(out)
        console.print(f"report: {report}", soft_wrap=True, markup=False)
        console.print(f"more: {shlex.join(['contseg', 'table', str(out)])}", soft_wrap=True, markup=False, highlight=False)
    if problems:
        raise ContsegError(
            f"sweep: {counted(len(problems), 'run')} failed, as listed above; repeat the command to try them again"
        )


def described(words: Sequence[str], given: Mapping[str, Any], out: Path | None) -> tuple[Sweep, Path]:
    """The sweep of a command line, and its folder.

    Args:
        words: recipes, and overrides that apply to all of them; or `sweep.yaml` or its folder, alone.
        given: values of the options that describe a sweep, by field of `Sweep`; None if an option was not used.
        out: folder of the runs; default: that of `sweep.yaml`.

    Raises:
        ContsegError: a word or an option is missing, wrong, or cannot be used together with `sweep.yaml`.
    """
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    recipes = [word for word in words if word not in overrides]
    used = {key: value for key, value in given.items() if value}
    places = [path for path in map(Path, recipes) if path.is_dir() or path.name == FILE or is_description(path)]
    if described := next(iter(places), None):
        if further := [*overrides, *(word for word in recipes if Path(word) != described), *map(OPTIONS.get, used)]:
            raise ContsegError(
                f"sweep: {further[0]} cannot be added to {described}, which describes the sweep; change it there"
            )
        return Sweep.read(described), out or (described if described.is_dir() else described.parent)
    if not recipes:
        raise ContsegError("sweep: name at least one recipe (list the packaged ones with: contseg recipes)")
    if out is None:
        raise ContsegError("sweep: --out is missing; name the folder of the runs")
    return Sweep(recipes=recipes, overrides=overrides, **used).relative_to(Path.cwd() / FILE), out


def is_description(path: Path) -> bool:
    """Whether a path is a folder with `sweep.yaml`, or a file that describes a sweep and not a recipe."""
    if path.is_dir():
        return (path / FILE).is_file()
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return False
    content = parse_yaml(path.read_text(encoding="utf-8", errors="replace"), str(path))
    return isinstance(content, dict) and "recipes" in content


def require_same_sweep(sweep: Sweep, out: Path) -> None:
    """Raise ContsegError if a folder contains a sweep that has runs which this one does not have."""
    if not (out / FILE).is_file():
        return
    before = Sweep.read(out)
    if before == sweep:
        return
    old, new = ({(name, run) for name, row in one.rows().items() for run in row.runs()} for one in (before, sweep))
    if not old <= new:
        changed = differences_text(differences(before.model_dump(), sweep.model_dump()))
        raise ContsegError(
            f"{out}: contains another sweep ({changed}); choose another folder with --out, or continue it with: contseg"
            f" sweep {shlex.quote(str(out / FILE))}"
        )
    if not (out / FILE).read_text(encoding="utf-8").startswith("format: "):
        raise ContsegError(f"{out / FILE}: was written by hand; change it there, or choose another folder with --out")


def values_of(setting: str) -> tuple[str, list[Any]]:
    """The key and the values of `--vary`.

    Raises:
        ContsegError: not KEY=VALUE,VALUE.

    Example:
        >>> values_of("training.epochs=[9, 5],3"), values_of("network.backbone=resnet18")
        (('training.epochs', [[9, 5], 3]), ('network.backbone', ['resnet18']))
    """
    key, equals, text = setting.partition("=")
    try:
        values = parse_yaml(f"[{text}]", "--vary") if key and equals else None
    except ContsegError:
        values = None
    if not values:
        raise ContsegError(f"--vary: '{setting}': expected KEY=VALUE,VALUE, such as training.lr=0.1,0.01")
    return key, values


def settings_of(settings: Sequence[str]) -> dict[str, list[Any]]:
    """The keys and values of several `--vary`.

    Raises:
        ContsegError: see `values_of`, or a key occurs twice.
    """
    found: dict[str, list[Any]] = {}
    for key, values in map(values_of, settings):
        if key in found:
            raise ContsegError(f"--vary: {key} occurs twice; list all values in one, such as {key}=0.1,0.01")
        found[key] = values
    return found


def seeds_or_count(text: str, option: str = "--seeds") -> int | list[int]:
    """The value of `--seeds`, or of a like option: a number of seeds, or seeds separated by commas.

    Raises:
        ContsegError: they are not whole numbers.

    Example:
        >>> seeds_or_count("3"), seeds_or_count("0,7"), seeds_or_count("7,")
        (3, [0, 7], [7])
    """
    if "," in text:
        return list(chosen_seeds(text, option))
    if not text.strip().isdecimal() or not 0 < int(text[:18]) <= MOST:
        raise ContsegError(
            f"{option}: expected a number of seeds, at most {MOST}, or seeds such as 0,1,2, or 7, for seed 7 alone (got"
            f" '{text}')"
        )
    return int(text)


def orders_or_count(text: str) -> int | list[str]:
    """The value of `--orders`: a number of class orders, or values of scenario.order separated by commas.

    Raises:
        ContsegError: there are none.

    Example:
        >>> orders_or_count("5"), orders_or_count("natural, seed:1")
        (5, ['natural', 'seed:1'])
    """
    if text.strip().isdecimal() and 0 < int(text[:18]) <= MOST:
        return int(text)
    orders = [part.strip() for part in text.split(",") if part.strip()]
    if not orders or text.strip().lstrip("-").isdecimal():
        raise ContsegError(
            f"--orders: expected a number of class orders, at most {MOST}, or orders such as own,seed:1 (got '{text}')"
        )
    return orders


def kinds_of(text: str) -> list[Kind]:
    """The value of `--with`.

    Raises:
        ContsegError: an unknown word.

    Example:
        >>> kinds_of("joint,finetune")
        ['joint', 'finetune']
    """
    kinds = [part.strip() for part in text.split(",") if part.strip()]
    for kind in kinds or [text]:
        if kind not in get_args(Kind):
            raise ContsegError(f"--with: unknown '{kind}'; {did_you_mean(kind, get_args(Kind))}")
    return kinds  # type: ignore[return-value]


def chosen_seeds(text: str, option: str = "--seeds") -> tuple[int, ...]:
    """Seeds from a text, separated by commas.

    Raises:
        ContsegError: they are not whole numbers, or one is listed twice.

    Example:
        >>> chosen_seeds("1, 0")
        (0, 1)
    """
    seeds = [part.strip() for part in text.split(",") if part.strip()]
    if not seeds or not all(seed.isdecimal() and len(seed) <= 18 for seed in seeds):
        raise ContsegError(f"{option}: expected whole numbers separated by commas, such as 0,1,2 (got '{text}')")
    found = sorted(map(int, seeds))
    if (seed := repeated(found)) is not None:
        raise ContsegError(f"{option}: {seed} is listed twice; remove one of them")
    return tuple(found)


def train_rows(
    rows: Mapping[str, Row],
    overrides: Sequence[str],
    out: Path,
    ways: Ways,
    sweep: Sweep | None = None,
    finished: Collection[tuple[str, str]] = (),
) -> dict[str, str]:
    """Train all unfinished runs, and print a line when one ends.

    Args:
        sweep: written to the folder when everything is checked.
        finished: row and name of runs that are not trained, as their results are kept elsewhere.

    Returns:
        Title and error of every run that failed.

    Raises:
        ContsegError: see `tasks_of`.
    """
    cells = [cell for cell in cells_of(rows, overrides, out) if (cell.row, cell.name) not in finished]
    executor = ways.executor(cells, out)
    with console.status("checking recipes and runs"):
        tasks = tasks_of(cells, ways.overwrite, ways.accept_changes)
    if sweep is not None:
        sweep.write(out)
    if not tasks:
        return {}
    progress = SweepProgress(tasks, len(cells) - len(tasks), len(cells), out)
    try:
        return Leader(tasks, executor, out / "cache", progress, ways.accept_changes).lead()
    finally:
        progress.stop()


def write_page(sweep: Page, path: Path, overrides: Sequence[str], out: Path, kept: Results | None = None) -> Results:
    """Write the page of the finished runs and print its path; returns the results.

    Args:
        kept: results in place of those of the runs in `out`, perhaps of several machines, so without a clock.
    """
    results, clock = kept, None
    if results is None:
        results, clock = read_results(cells_of(sweep.rows, overrides, out)), read_clock(out / CLOCK)
    write(path, page(sweep, results, overrides, clock, kept_notes(path)))
    console.print(f"page: {path}", soft_wrap=True, markup=False)
    for warning in result_warnings(results):
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    return results


def result_table(rows: Mapping[str, Row], results: Results) -> Table:
    """Mean and standard deviation over the finished runs of every row; PQ of all classes where a run measured it."""
    quality = any(result.figures.get("pq_all") is not None for result in results.values())
    shown, titles = ((*FIGURES, "pq_all"), (*FIGURES, QUALITY["pq_all"])) if quality else (FIGURES, FIGURES)
    what = "mIoU and PQ" if quality else "mIoU"
    table = Table(caption=f"{what} in %, background not counted: mean ± standard deviation over n runs")
    table.add_column("recipe", overflow="fold")
    for title in (*titles, "n"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, row in rows.items():
        found = [results[name, run].figures for run in row.runs() if (name, run) in results]
        means = (spread([value for one in found if (value := one.get(key)) is not None]) for key in shown)
        table.add_row(row.label, *means, str(len(found)))
    return table
