"""`contseg data`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contseg.cli.plugins import PluginOption
from contseg.errors import ContsegError, counted

if TYPE_CHECKING:
    from rich.table import Table

    from contseg.data.check import Problem, SubsetStatistics
    from contseg.data.classes import ClassTable

app = typer.Typer(no_args_is_help=True)


@app.callback(epilog="Example: contseg data check voc VOC2012")
def data() -> None:
    """Inspect a dataset before training."""


OptionsArgument = Annotated[
    list[str] | None, typer.Argument(help="Options, as under data.options in a recipe.", metavar="[KEY=VALUE]...")
]


@app.command(epilog="Example: contseg data check folder photos background=unlabelled")
def check(
    dataset: Annotated[str, typer.Argument(help="Kind of dataset, e.g. voc or folder.", metavar="DATASET")],
    path: Annotated[
        str | None, typer.Argument(help="Folder of the dataset; none for digits and globe.", metavar="[PATH]")
    ] = None,
    options: OptionsArgument = None,
    workers: Annotated[int | None, typer.Option(min=1, max=1024, help="Files read in parallel; default: all cores.")] = None,
    plugin: PluginOption = None,
) -> None:
    """Read all images and masks of a dataset, and list problems.

    Also counts the images and pixels of every class.
    """
    from contseg.cli.console import console, progress_bar
    from contseg.data.check import check_dataset, remarks
    from contseg.data.open import open_dataset

    path, values = path_and_options(path, options or [])
    opened = open_dataset(dataset, path, **values)
    with progress_bar("reading images and masks") as progress:
        problems, statistics = check_dataset(opened, workers=workers, progress=progress)
    if problems:
        console.print(problem_table(problems))
    if opened.left_out:
        console.print(left_out_table(opened.left_out))
    console.print(class_table(opened.classes, statistics))
    noted = remarks(opened, statistics)
    for text in noted:
        console.print("note: " + text, soft_wrap=True, highlight=False, markup=False)
    if problems:
        files = len({(problem.file, problem.text if not problem.file else "") for problem in problems})
        raise ContsegError(
            f"{opened.root}: {counted(len(problems), 'problem')} in {counted(files, 'file')}, as listed above"
        )
    verdict = f"{opened.root}: no problems found" + ("; see the notes above" if noted else "")
    console.print(verdict, soft_wrap=True, highlight=False, markup=False)


@app.command(epilog="Example: contseg data extract digits --class five --out fives")
def extract(
    dataset: Annotated[str, typer.Argument(help="Kind of dataset, e.g. voc or folder.", metavar="DATASET")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to; must not exist.")],
    names: Annotated[list[str], typer.Option("--class", help="Class that stays labelled; repeatable.")],
    path: Annotated[str | None, typer.Argument(help="Folder of the dataset; none for digits.", metavar="[PATH]")] = None,
    options: OptionsArgument = None,
    images: Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of images.")] = 60,
    plugin: PluginOption = None,
) -> None:
    """Write images in which only some classes are labelled, to try contseg extend."""
    from contseg.cli.console import console, progress_bar
    from contseg.data.extract import extract as write
    from contseg.data.open import open_dataset

    path, values = path_and_options(path, options or [])
    opened = open_dataset(dataset, path, **values)
    with progress_bar() as progress:
        count = write(opened, names, out, images, progress)
    console.print(f"{counted(count, 'image')}: {out}", soft_wrap=True, highlight=False)


def path_and_options(path: str | None, options: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """The folder of a dataset and its options; a path that does not exist and has a `=` is the first option.

    Example:
        >>> path_and_options("train=60", ["size=48"])
        (None, {'train': 60, 'size': 48})
    """
    if path is not None and "=" in path and not Path(path).exists():
        return None, parse_options([path, *options])
    return path, parse_options(options)


def parse_options(values: Sequence[str]) -> dict[str, Any]:
    """Options from `KEY=VALUE` pairs, with values in YAML. Keys may be those of a recipe, `data.options.KEY` or `data.KEY`.

    Raises:
        ContsegError: `=` or the key is missing, or the value is not YAML.

    Example:
        >>> parse_options(["background=false", "data.options.size=48", "data.follow_links=true"])
        {'background': False, 'size': 48, 'follow_links': True}
    """
    from contseg.settings import key_value

    found = (key_value(value, "background=unlabelled") for value in values)
    return {key.removeprefix("data.options.").removeprefix("data."): value for key, value in found}


def problem_table(problems: Sequence["Problem"]) -> "Table":
    """A row for each problem: subset, sample, file and problem."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="problems", show_lines=False)
    for title in ("subset", "sample", "file", "problem"):
        table.add_column(title, overflow="fold")
    for problem in problems:
        table.add_row(*map(Text, (problem.subset, problem.sample or "-", problem.file or "-", problem.text)))
    return table


def left_out_table(rows: Sequence[tuple[Path, str]]) -> "Table":
    """A row for each line that is not used of a file of the dataset."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="left out", show_lines=False)
    table.add_column("file", overflow="fold")
    table.add_column("row", overflow="fold")
    for path, text in rows:
        table.add_row(Text(str(path)), Text(text))
    return table


def class_table(classes: "ClassTable", statistics: Sequence["SubsetStatistics"]) -> "Table":
    """Images and pixels of every class in each subset; `never` for a class that a subset does not contain."""
    from rich.table import Table

    counts = ", ".join(f"{one.samples} {one.subset}" for one in statistics)
    table = Table(title=f"{len(classes)} classes in {counts} samples")
    table.add_column("id", justify="right")
    table.add_column("class")
    for one in statistics:
        table.add_column(f"{one.subset} images", justify="right")
        table.add_column("pixels", justify="right")
    for row, (number, name) in enumerate(zip(classes.ids, classes.names, strict=True)):
        cells = []
        for one in statistics:
            images = int(one.images[row])
            cells += [str(images), str(int(one.pixels[row]))] if images else ["never", "-"]
        table.add_row(str(number), name, *cells)
    table.add_row("", "ignored", *(cell for one in statistics for cell in ("", str(one.ignored))))
    return table
