"""The sanity table: methods on the demo's digits, 5-1, over several seeds; writes docs/digits-results.md.

    python -m benchmarks.digits_table                                  # all rows; goes on where it was stopped
    python -m benchmarks.digits_table --rows mib,plop --seeds 0        # some of it; the page still shows all
    python -m benchmarks.digits_table --only-table                     # the page of what is finished

A run whose recipe changed since is trained anew. Everything lives in `--out`; delete it to begin again.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from benchmarks.table_page import kept_notes, page, plan_warnings, read_results, write
from benchmarks.table_runs import Row, Task, Watcher, cells_of, tasks_of, train_all
from contseg.cli.console import console, percent
from contseg.engine.cache import StepCache
from contseg.errors import ContsegError, did_you_mean

SHORT = ("training.epochs=[9, 5]",)  # the demo's 18 and 12 would take more than an hour for all rows
IDRNET = (*SHORT, "network.head=fcn", "network.idrnet={attention_width: 32}")

# Name of a row (its folder) to what it is, from no remedy to the upper bound. The first row of a table is what the
# others are compared with.
TABLES: dict[str, dict[str, Row]] = {
    "Methods": {
        "finetune": Row("finetune", "digits/finetune_5-1", SHORT),
        "finetune-0.01": Row("finetune, rate 0.01", "digits/finetune_5-1", (*SHORT, "training.lr_later=0.01")),
        "finetune-0.003": Row("finetune, rate 0.003", "digits/finetune_5-1", (*SHORT, "training.lr_later=0.003")),
        "frozen": Row("frozen", "digits/frozen_5-1", SHORT),
        "ewc": Row("EWC", "digits/ewc_5-1", SHORT),
        "pi": Row("PI", "digits/pi_5-1", SHORT),
        "rw": Row("RW", "digits/rw_5-1", SHORT),
        "lwf": Row("LwF", "digits/lwf_5-1", SHORT),
        "lwf-mc": Row("LwF-MC", "digits/lwf-mc_5-1", SHORT),
        "ilt": Row("ILT", "digits/ilt_5-1", SHORT),
        "mib": Row("MiB", "digits/mib_5-1", SHORT),
        "plop": Row("PLOP", "digits/plop_5-1", SHORT),
        "sdr-alone": Row("SDR", "digits/sdr_5-1", (*SHORT, "method.on=alone")),
        "sdr": Row("SDR on MiB", "digits/sdr_5-1", SHORT),
        "ssul": Row("SSUL", "digits/ssul_5-1", SHORT),
        "ssul-m": Row("SSUL-M", "digits/ssul-m_5-1", SHORT),
        "idec": Row("IDEC", "digits/idec_5-1", SHORT),
        "lag": Row("LAG", "digits/lag_5-1", SHORT),
        "joint": Row("joint", "digits/joint", ("training.epochs=13",)),
    },
    "Methods with IDRNet over FCN": {
        "idrnet-finetune": Row("finetune", "digits/finetune_5-1", IDRNET),
        "idrnet-mib": Row("MiB", "digits/mib_5-1", IDRNET),
        "idrnet-plop": Row("PLOP", "digits/plop_5-1", IDRNET),
        "idrnet-sdr": Row("SDR on MiB", "digits/sdr_5-1", IDRNET),
        "idrnet-idec": Row("IDEC", "digits/idec_5-1", (*IDRNET, "method.features=stages")),
    },
}
SEEDS = (0, 1, 2)
COMMAND = "make digits-table"


class Progressing(Watcher):
    """Draws how many runs are done, what each process does, and the time; keeps the time by the clock in a file.

    Args:
        tasks: to be trained.
        finished, total: runs done before, and all.
        out: folder of the table.
    """

    def __init__(self, tasks: Sequence[Task], finished: int, total: int, out: Path):
        self.tasks, self.finished, self.total, self.clock = tasks, finished, total, out / "clock.json"
        cache = out / "cache"
        bearers: dict[str, Task] = {}
        for task in tasks:
            if not StepCache(cache, task.key).filled:
                bearers.setdefault(task.key, task)
        self.shares = {task: bearers.get(task.key) is not task for task in tasks}
        columns = TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[detail]}")
        self.bars = Progress(*columns, console=console, transient=True)
        self.lines: dict[Task, TaskID] = {}

    def started(self) -> None:
        self.done = {task: task.done(self.shares[task]) for task in self.tasks}
        self.work = sum(task.work(self.shares[task]) for task in self.tasks)
        self.before, self.since, self.spent = sum(self.done.values()), time.monotonic(), read_clock(self.clock)
        self.whole = self.bars.add_task("", total=max(self.work, 1), detail="")
        self.bars.start()

    def look(self, running: Sequence[Task], waiting: Sequence[Task]) -> None:
        for task in running:
            self.done[task] = task.done(self.shares[task])
            if task not in self.lines:
                self.lines[task] = self.bars.add_task(task.cell.title, total=task.work(False), detail="")
            self.bars.update(self.lines[task], completed=task.done(False), detail=_place(task))
        elapsed, done = time.monotonic() - self.since, sum(self.done.values())
        left = _minutes(elapsed * (self.work - done) / (done - self.before)) if done > self.before else "-"
        self.bars.update(
            self.whole,
            completed=done,
            description=f"{self.finished} of {self.total} runs",
            detail=f"{_minutes(elapsed)} elapsed, {left} left",
        )
        write(self.clock, json.dumps({"seconds": round(self.spent + elapsed, 1)}))

    def ended(self, task: Task, problem: str | None) -> None:
        if task in self.lines:
            self.bars.remove_task(self.lines.pop(task))
        self.done[task] = task.done(self.shares[task])
        summary = task.cell.run.summary()
        if problem or not summary:
            said = problem or "stopped"
        else:
            self.finished += 1
            said = "  ".join(f"{key} {percent(summary[key])}" for key in ("old", "new", "all"))
            said += f"  ({self.finished} of {self.total})"
        console.print(f"{task.cell.title}: {said}", highlight=False, soft_wrap=True)

    def stop(self) -> None:
        self.bars.stop()


def _place(task: Task) -> str:
    """Step and epoch that a run is in."""
    epochs = [line for line in task.cell.run.metrics() if line["kind"] == "epoch"]
    if not epochs:
        return f"step 1/{len(task.images)}"
    step, count = epochs[-1]["step"], epochs[-1]["epoch"] + 1
    return f"step {step + 1}/{len(task.images)}, epoch {count}/{task.cell.recipe.training.epochs_of(step)}"


def _minutes(seconds: float) -> str:
    return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"


def read_clock(path: Path) -> float:
    """Seconds that the command ran, over all its starts."""
    return json.loads(path.read_text(encoding="utf-8"))["seconds"] if path.is_file() else 0.0


def chosen_rows(tables: Mapping[str, Mapping[str, Row]], names: str | None) -> dict[str, Row]:
    """Rows by name, of all tables; only those of a list with commas, if there is one.

    Raises:
        ContsegError: no such row.
    """
    rows = {name: row for table in tables.values() for name, row in table.items()}
    wanted = _split(names) if names is not None else list(rows)
    for name in wanted:
        if name not in rows:
            raise ContsegError(f"--rows: unknown row '{name}'; {did_you_mean(name, rows)}")
    return {name: rows[name] for name in rows if name in wanted}


def chosen_seeds(text: str) -> list[int]:
    """Seeds of a list with commas.

    Raises:
        ContsegError: not whole numbers.
    """
    seeds = _split(text)
    if not seeds or not all(seed.isdecimal() for seed in seeds):
        raise ContsegError(f"--seeds: give whole numbers with commas between (got '{text}')")
    return sorted({int(seed) for seed in seeds})


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def make_table(options: argparse.Namespace) -> int:
    """Train what is not finished, write the page; returns the exit code."""
    rows, seeds = chosen_rows(TABLES, options.rows), chosen_seeds(options.seeds)
    notes = kept_notes(options.docs)  # before hours of training, not after
    problems: dict[str, str] = {}
    if not options.only_table:
        cells = cells_of(rows, seeds, options.overrides, options.out)
        with console.status("looking at what there is"):
            tasks = tasks_of(cells)
        if tasks:
            watcher = Progressing(tasks, len(cells) - len(tasks), len(cells), options.out)
            try:
                problems = train_all(tasks, options.out, options.workers, watcher)
            finally:
                watcher.stop()
    shown = sorted({*seeds, *SEEDS})
    results = read_results(cells_of(chosen_rows(TABLES, None), shown, options.overrides, options.out))
    clock = read_clock(options.out / "clock.json")
    write(options.docs, page(TABLES, results, shown, COMMAND, options.overrides, clock, notes))
    console.print(f"page: {options.docs}", soft_wrap=True)
    for warning in plan_warnings(results):
        console.print(f"warning: {warning}", highlight=False, soft_wrap=True)
    for title, problem in problems.items():
        console.print(f"not finished: {title}: {problem}", highlight=False, soft_wrap=True)
    return 1 if problems else 0


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.digits_table", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to every recipe")
    parser.add_argument("--rows", help=f"only these, with commas between: {', '.join(chosen_rows(TABLES, None))}")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="seeds to train (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes at a time (default: cores)")
    parser.add_argument("--out", type=Path, default=Path("runs") / "digits-table", help="folder of the runs")
    parser.add_argument("--docs", type=Path, default=Path("docs") / "digits-results.md", help="the page")
    parser.add_argument("--only-table", action="store_true", help="train nothing, write the page of what is finished")
    options = parser.parse_intermixed_args(arguments)
    if options.workers < 1:
        parser.error("--workers: give 1 or more")
    return options


def main() -> None:
    try:
        code = make_table(parsed(sys.argv[1:]))
    except ContsegError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
