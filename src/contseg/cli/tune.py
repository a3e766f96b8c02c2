"""`contseg tune`."""

import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contseg.cli.console import console
from contseg.cli.sweep import Ways, result_table, train_rows
from contseg.differences import differences, differences_text
from contseg.errors import ContsegError, counted
from contseg.interruption import Interrupted
from contseg.lock import held
from contseg.replaceable import require_replaceable
from contseg.sweeps.cells import Row
from contseg.sweeps.page import Results, read_results, write
from contseg.sweeps.runs import tasks_of
from contseg.sweeps.space import space_of
from contseg.sweeps.study import Study, require_optuna
from contseg.sweeps.sweep import Sweep
from contseg.sweeps.tune import FILE, REPORT, SEARCH, Tune, cells, chosen_recipe, settings, trial_name
from contseg.sweeps.tune_page import MARK, PAGE, fairness, tune_page

LOCK = "tune.lock"
"""In the folder, while a command works on it."""


def described(words: Sequence[str], given: Mapping[str, Any], out: Path | None) -> tuple[Tune, Path]:
    """The tuning of a command line, and its folder.

    Args:
        words: a recipe and KEY=VALUE; or `tune.yaml` or its folder, alone.
        given: options by field of `Tune`; None if an option was not used.
        out: folder of the runs; default: that of `tune.yaml`.

    Raises:
        ContsegError: a word or an option is missing, wrong, or cannot be used together with `tune.yaml`.
    """
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    names = [word for word in words if word not in overrides]
    used = {key: value for key, value in given.items() if value is not None and value != []}
    if len(names) != 1:
        raise ContsegError(f"tune: expected one recipe, got {len(names)} (list the packaged ones with: contseg recipes)")
    path = Path(names[0])
    if path.name == FILE or (path / FILE).is_file():
        if (further := [*overrides, *used]) and further != ["trials"]:
            raise ContsegError(f"tune: {further[0]} cannot be added to {path}, which describes the tuning; change it there")
        tune = Tune.read(path)
        return tune.model_copy(update=used), out or (path if path.is_dir() else path.parent)
    if out is None:
        raise ContsegError("tune: --out is missing; name the folder of the runs")
    if "on" not in used:
        raise ContsegError("tune: --on is missing; name what is searched: a class order, such as seed:1, or a recipe")
    used["space"] = space_of(used.get("space", []))
    return Tune(recipe=names[0], overrides=overrides, **used).relative_to(Path.cwd()), out


def require_same_tuning(tune: Tune, out: Path) -> None:
    """Raise ContsegError if a folder contains another tuning; one with fewer trials is continued."""
    if not (out / FILE).is_file():
        return
    before = Tune.read(out).model_copy(update={"trials": tune.trials})
    if before != tune:
        changed = differences_text(differences(before.model_dump(), tune.model_dump()))
        raise ContsegError(
            f"{out}: contains another tuning ({changed}); choose another folder with --out, or continue it with: contseg"
            f" tune {shlex.quote(str(out))}"
        )


def run_tune(tune: Tune, out: Path, ways: Ways) -> None:
    """Search, report the best values on the other data, and write `tune.yaml` and `tune.md`.

    Raises:
        ContsegError: the description is invalid, `out` contains another tuning or other files, no trial finished, or, at the
            end, runs that are reported failed.
        Interrupted: a signal ended it; all runs are saved.
    """
    require_optuna()
    tune.check()
    require_same_tuning(tune, out)
    require_replaceable(out / PAGE, MARK)
    ways.executor([], out / SEARCH)  # raises for options of sbatch and missing commands of SLURM, before anything is written
    words = [word for word in ways.words if word not in ("--on", "slurm")]  # here, --on is the data
    command = shlex.join(["contseg", "tune", str(out), *words])
    with held(out / LOCK, f"{out}: a tuning"):
        try:
            if not (out / FILE).is_file():  # before hours of searching
                with console.status("checking recipes"):
                    tasks_of(cells(tune.trial_rows({0: tune.own_values() or {}}), out / SEARCH))
                    tasks_of(cells(tune.report_sweep().rows(), out / REPORT))
            tune.write(out)
            study = Study(tune, out)
            search(tune, study, out, ways)
            rows = reported_rows(tune, study, out)
            problems = train_rows(rows, [], out / REPORT, ways)
        except Interrupted as stop:
            stop.resume = command
            raise
        searched = read_results(cells(tune.trial_rows(study.values()), out / SEARCH))
        reported = read_results(cells(rows, out / REPORT))
        write(out / PAGE, tune_page(tune, study, searched, rows, reported, command))
    show(tune, study, searched, rows, reported)
    console.print(f"page: {out / PAGE}", soft_wrap=True, markup=False)
    if problems:
        raise ContsegError(
            f"tune: {counted(len(problems), 'run')} of the report failed, as listed above; repeat the command"
        )


def show(tune: Tune, study: Study, searched: Results, rows: Mapping[str, Row], reported: Results) -> None:
    """Print the chosen values, what the choice rests on, and the table of the report."""
    best = study.best()
    assert best is not None  # `search` ends with an error otherwise
    chosen = " ".join(settings(study.values()[best]))
    for line in (
        f"chosen: {chosen} ({trial_name(best)} of {len(study.values())})",
        *fairness(tune, searched, reported),
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(result_table(rows, reported))


def search(tune: Tune, study: Study, out: Path, ways: Ways) -> None:
    """Train the trials that have no result, round by round.

    A trial with a run that failed has no score; it is not tried again, unless no trial at all finished.

    Raises:
        ContsegError: no trial finished.
    """
    while trials := study.round():
        numbers = ", ".join(map(str, trials))
        console.print(f"trials {numbers} of {tune.trials}, on {tune.searched.title}", markup=False, highlight=False)
        rows = tune.trial_rows(trials)
        problems = train_rows(rows, [], out / SEARCH, ways)
        scores = {number: score(tune, rows[trial_name(number)], trial_name(number), out) for number in trials}
        if not study.scores() and not any(value is not None for value in scores.values()):
            first = next(iter(problems.values()), f"{tune.goal} was not measured")
            raise ContsegError(f"tune: no trial finished ({first}); correct it, and repeat the command")
        for number, value in scores.items():
            study.tell(number, value)


def score(tune: Tune, row: Row, name: str, out: Path) -> float | None:
    """The mean of the searched figure over the runs of a trial; None if one of them failed or did not measure it."""
    runs = cells({name: row}, out / SEARCH)
    figures = [(cell.run.summary() or {}).get(tune.goal) if cell.finished else None for cell in runs]
    known = [figure for figure in figures if figure is not None]
    return statistics.fmean(known) if len(known) == len(figures) else None


def reported_rows(tune: Tune, study: Study, out: Path) -> dict[str, Row]:
    """The rows of the report, as a sweep in its folder: the recipe, and the recipe with the values of the best trial."""
    best = study.best()
    assert best is not None  # `search` ends with an error otherwise
    values = study.values()[best]
    further: list[str] = []
    if values != tune.own_values() or tune.reported.recipe != tune.recipe:
        further = [f"{trial_name(best)}.yaml"]
        write(out / REPORT / further[0], chosen_recipe(tune, best, values))
    tune.report_sweep(further).write(out / REPORT)
    return Sweep.read(out / REPORT).rows()
