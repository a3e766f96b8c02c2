"""The description of a tuning, `tune.yaml`: what is searched, on which data, and on which other data it is reported."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from ruamel.yaml import YAML

from contseg.differences import flat
from contseg.errors import ContsegError
from contseg.options import Options, Seed
from contseg.parsing import parse_yaml
from contseg.recipes.read import read_recipe
from contseg.settings import key_value
from contseg.sweeps.cells import OWN, Cell, Row, cells_of
from contseg.sweeps.description import read_description, write_description
from contseg.sweeps.space import Range, range_of
from contseg.sweeps.sweep import Number, Sweep, override

FILE = "tune.yaml"
SEARCH, REPORT = "search", "report"
"""Folders of the runs that are searched, and of those that are reported."""

Values = Mapping[str, Any]
"""Key to value of a trial."""


@dataclass(frozen=True)
class Place:
    """Data and class orders of runs.

    Args:
        recipe: name or file.
        orders: values of `scenario.order` or `own`, or a number of them, as in `Sweep`.
        overrides: KEY=VALUE.
    """

    recipe: str
    orders: int | list[str]
    overrides: tuple[str, ...]

    @property
    def title(self) -> str:
        """As text."""
        orders = self.orders if isinstance(self.orders, list) else [f"{self.orders} orders"]
        shown = [] if orders == [OWN] else [f"class order {', '.join(orders)}"]
        return ", ".join([self.recipe, *shown, *self.overrides])


class Tune(Options):
    """Hyper-parameters of a recipe that are searched on one dataset or class order and reported on another.

    Attributes:
        recipe: name or file of the recipe.
        on: what is searched, as words: another recipe of the same method, class orders, KEY=VALUE.
        report_on: what is reported, in the same way; default: the recipe with its own order.
        space: key to its range, see `contseg.sweeps.space.range_of`.
        trials: number of trials, each with its own values.
        round: number of trials that are suggested together, without results of each other.
        goal: the figure whose mean over the runs of a trial is searched for its maximum.
        seeds: of the reported runs, a list or a number.
        search_seeds: of each trial, a list or a number.
        sampler_seed: seed of the suggestions.
        overrides: KEY=VALUE of all runs.
        plugins: of all runs.
    """

    recipe: str = Field(examples=["digits/mib_5-1"])
    on: list[str] = Field(min_length=1, examples=["[seed:1]"])
    report_on: list[str] = Field([], examples=["[own]"])
    space: dict[str, str] = Field(min_length=1, examples=["{training.lr: 0.01:0.1:log}"])
    trials: Annotated[int, Field(ge=1, le=10_000)] = 20
    round: Annotated[int, Field(ge=1, le=1000)] = 4
    goal: Literal["all", "old", "new"] = "all"
    seeds: Number | list[Seed] = 3
    search_seeds: Number | list[Seed] = 1
    sampler_seed: Seed = 0
    overrides: list[str] = Field([])
    plugins: list[str] = Field([])

    @classmethod
    def read(cls, path: Path) -> "Tune":
        """Read `tune.yaml` of a folder, or a file; relative files in it are relative to it.

        Raises:
            ContsegError: it is missing, or is not such a file.
        """
        path = path / FILE if path.is_dir() else path
        return read_description(cls, path, "space", "tuning").relative_to(path.parent)

    def write(self, folder: Path) -> None:
        """Write `tune.yaml` atomically."""
        write_description(self, folder / FILE)

    def relative_to(self, folder: Path) -> "Tune":
        """The same tuning with files of recipes and plugins that are relative to a folder as absolute paths."""

        def whole(word: str) -> str:
            return str((folder / word).resolve()) if (folder / word).is_file() else word

        lists = {key: [whole(word) for word in getattr(self, key)] for key in ("on", "report_on", "plugins")}
        return self.model_copy(update={"recipe": whole(self.recipe), **lists})

    @property
    def ranges(self) -> dict[str, Range]:
        """Key to range."""
        return {key: range_of(key, text) for key, text in self.space.items()}

    @property
    def searched(self) -> Place:
        """Where the values are searched."""
        return self._place("--on", self.on)

    @property
    def reported(self) -> Place:
        """Where the chosen values are reported."""
        return self._place("--report-on", self.report_on)

    def _place(self, option: str, words: Sequence[str]) -> Place:
        """The meaning of words: a recipe, class orders, KEY=VALUE."""
        recipes: list[str] = []
        orders: list[str] = []
        overrides: list[str] = []
        for word in words:
            if Path(word).is_file() or word.endswith((".yaml", ".yml")) or ("/" in word and "=" not in word):
                recipes.append(word)
            elif "=" in word:
                key_value(word, "data.path=FOLDER", f"{option}: ")
                overrides.append(word)
            else:
                orders += [word] if word.startswith("[") else [part.strip() for part in word.split(",")]
        if len(recipes) > 1:
            raise ContsegError(f"{option}: two recipes, {recipes[0]} and {recipes[1]}; name one of them")
        number = int(orders[0]) if len(orders) == 1 and orders[0].isdecimal() and len(orders[0]) < 4 else None
        return Place(recipes[0] if recipes else self.recipe, orders or [OWN] if number is None else number, tuple(overrides))

    def _sweep(self, place: Place, seeds: int | list[int], further: Sequence[str] = ()) -> Sweep:
        return Sweep(
            recipes=[place.recipe, *further], seeds=seeds, orders=place.orders,
            overrides=[*self.overrides, *place.overrides], plugins=self.plugins,
        )  # fmt: skip

    def search_row(self) -> Row:
        """The row of a trial, without its values."""
        (row,) = self._sweep(self.searched, self.search_seeds).rows().values()
        return row

    def report_sweep(self, further: Sequence[str] = ()) -> Sweep:
        """The sweep that is reported: the recipe with its own values, and further recipes."""
        return self._sweep(self.reported, self.seeds, further)

    def trial_rows(self, trials: Mapping[int, Values]) -> dict[str, Row]:
        """Name to row of some trials."""
        row = self.search_row()
        return {
            trial_name(number): replace(row, label=trial_name(number), overrides=(*row.overrides, *settings(values)))
            for number, values in trials.items()
        }

    def own_values(self) -> dict[str, Any] | None:
        """The values that the recipe has itself; None if one of them is not in its range."""
        recipe = dict(flat(read_recipe(self.recipe, self._shared).model_dump(mode="json")))
        values = {key: one.position(recipe.get(key)) for key, one in self.ranges.items()}
        return None if None in values.values() else values

    @property
    def _shared(self) -> list[str]:
        return [*self.overrides, *([f"plugins={self.plugins}"] if self.plugins else [])]

    def check(self) -> None:
        """Raise ContsegError unless both places can be trained with all values, and the reported data is not searched.

        Raises:
            ContsegError: a recipe, key, value or class order is invalid; both methods differ; or a class order of the same
                data is in both places.
        """
        for setting in (*self.overrides, *self.searched.overrides, *self.reported.overrides):
            if (key := setting.partition("=")[0]) in self.space:
                raise ContsegError(f"--space: {key} is also set by {setting}; remove one of them")
        row, sweep = self.search_row(), self.report_sweep()
        for place in ((row.recipe, row.overrides), (self.reported.recipe, sweep.overrides)):
            for key, one in self.ranges.items():
                for end in one.ends:
                    read_recipe(place[0], [*place[1], *settings({key: end})])
        searched, reported = cells(self.trial_rows({0: {}})), cells(sweep.rows())
        methods = [read.recipe.method["name"] for read in (searched[0], reported[0])]
        if methods[0] != methods[1]:
            raise ContsegError(
                f"--on: {row.recipe} has method {methods[0]}, and {self.reported.recipe} has {methods[1]}; name a recipe of"
                " the same method"
            )
        if both := {data_of(cell) for cell in searched} & {data_of(cell) for cell in reported}:
            dataset, order = min(both)[0], min(both)[1]
            raise ContsegError(
                f"--on: {dataset} in class order {order} is also reported; search on another class order (such as --on"
                " seed:1) or on a recipe of another dataset"
            )

    def shares_images(self) -> bool:
        """Whether both places have the same dataset, in other class orders."""
        first = {data_of(cell)[::2] for cell in cells(self.trial_rows({0: {}}))}
        return bool(first & {data_of(cell)[::2] for cell in cells(self.report_sweep().rows())})


def cells(rows: Mapping[str, Row], folder: Path = Path()) -> list[Cell]:
    """All runs of some rows."""
    return cells_of(rows, (), folder)


def data_of(cell: Cell) -> tuple[str, str, str]:
    """Dataset, class order (or order of domains), and place of the data of a run."""
    data, scenario = cell.recipe.data, cell.recipe.scenario
    order = str(scenario.domains) if scenario.by == "domain" else cell.order
    return data.dataset, order, f"{Path(data.path).resolve() if data.path else ''} {data.options}"


def settings(values: Values) -> list[str]:
    """KEY=VALUE of values.

    Example:
        >>> settings({"method.pod": 0.01, "training.epochs": "[9, 5]"})
        ['method.pod=0.01', 'training.epochs=[9, 5]']
    """
    return [override(key, value) for key, value in values.items()]


def trial_name(number: int) -> str:
    """The name of the row of a trial.

    Example:
        >>> trial_name(7)
        'trial-007'
    """
    return f"trial-{number:03d}"


def chosen_recipe(tune: Tune, number: int, values: Values) -> str:
    """The text of the recipe of a trial: that which is reported, with the values of the trial."""
    content: dict[str, Any] = {"extends": tune.reported.recipe, "name": trial_name(number)}
    for key, value in values.items():
        *above, last = key.split(".")
        inner = content
        for part in above:
            inner = inner.setdefault(part, {})
        inner[last] = parse_yaml(value, key) if isinstance(value, str) else value
    text = io.StringIO()
    YAML().dump(content, text)
    return text.getvalue()
