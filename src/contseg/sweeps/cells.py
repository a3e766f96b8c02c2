"""The runs of a sweep: rows of the table, and one run per row, seed and class order."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from contseg.digest import sha256
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.parsing import parse_yaml
from contseg.recipes.build import resumed_recipe
from contseg.recipes.read import read_recipe
from contseg.recipes.recipe import Recipe
from contseg.scenarios.orders import published_orders

OWN = "own"
"""The class order that the recipe sets itself."""


@dataclass(frozen=True)
class Row:
    """A row of the table: a recipe that is trained with several seeds and class orders.

    Args:
        label: name in the table.
        recipe: name or file of the recipe.
        overrides: overrides of the recipe.
        seeds: of training; each is combined with every order.
        orders: values of `scenario.order`, or `OWN`.
        by_seed: further overrides of the runs of a seed.
    """

    label: str
    recipe: str
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    orders: tuple[str, ...] = (OWN,)
    by_seed: Callable[[int], tuple[str, ...]] = lambda seed: ()

    def runs(self) -> list[str]:
        """The names of its runs, which are also their folders."""
        return [run_name(seed, order) for seed in self.seeds for order in self.orders]


def run_name(seed: int, order: str = OWN) -> str:
    """The name of a run within its row.

    Example:
        >>> run_name(0), run_name(2, "seed:1")
        ('0', '2,seed-1')
    """
    return str(seed) if order == OWN else f"{seed},{safe_name(order)}"


def safe_name(text: str) -> str:
    """The name of a folder for a text.

    Example:
        >>> safe_name("digits/mib_5-1,training.lr=0.1")
        'digits-mib_5-1,training.lr=0.1'
    """
    return re.sub(r"[^\w.,=+-]", "-", text)


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of a sweep, in `OUT/ROW/NAME`.

    Args:
        row: name of its row, which is its folder.
        label: of the row, in tables.
        seed: of training.
        order: the class order, as in `scenario.order`: `natural`, `seed:1`, a letter, ...
        recipe: with seed and order.
        folder: of the run.
    """

    row: str
    label: str
    seed: int
    order: str
    recipe: Recipe
    folder: Path

    @property
    def name(self) -> str:
        """Of the run within its row, see `run_name`."""
        return self.folder.name

    @property
    def run(self) -> Run:
        """The run in the folder."""
        return Run(self.folder)

    @property
    def title(self) -> str:
        """Row, seed and order as text."""
        order = f", order {self.order}" if self.name != str(self.seed) else ""
        return f"{self.row}, seed {self.seed}{order}"

    @property
    def begun(self) -> bool:
        """Whether the folder contains a run of this very recipe."""
        try:
            resumed_recipe(self.folder, self.recipe)
        except ContsegError:
            return False
        return True

    @property
    def finished(self) -> bool:
        """Whether that run is finished; not if its summary is damaged, which a resume makes again."""
        try:
            return self.run.summary() is not None and self.begun
        except ContsegError:
            return False

    @property
    def has_state(self) -> bool:
        """Whether a state of a run is saved; also if its plan is damaged, which the process of the run reports."""
        try:
            return self.run.last_begun() >= 0
        except ContsegError:
            return True

    @property
    def epoch_lines(self) -> list[dict[str, Any]]:
        """The epochs of metrics.jsonl; none if it is damaged, as a resume restores it."""
        try:
            return [line for line in self.run.metrics() if line["kind"] == "epoch"]
        except ContsegError:
            return []

    @property
    def past_step_0(self) -> bool:
        """Whether its step 0 is finished."""
        return (self.folder / "steps" / "00" / "confusion.npz").is_file()


def cells_of(rows: Mapping[str, Row], overrides: Sequence[str], out: Path) -> list[Cell]:
    """All runs, seed by seed and order by order, so that the rows of an unfinished sweep have about as many runs each.

    Raises:
        ContsegError: a recipe does not exist or has an invalid key.
    """
    seeds = sorted({seed for row in rows.values() for seed in row.seeds})
    orders = list(dict.fromkeys(order for row in rows.values() for order in row.orders))
    read = cache(read_recipe)
    return [
        _cell(name, row, seed, order, overrides, out, read)
        for seed in seeds
        for order in orders
        for name, row in rows.items()
        if seed in row.seeds and order in row.orders
    ]


def _cell(
    name: str, row: Row, seed: int, order: str, overrides: Sequence[str], out: Path, read: Callable[..., Recipe]
) -> Cell:
    words = (*row.overrides, *row.by_seed(seed), *overrides)
    recipe = read(row.recipe, words)
    text = order_text(recipe) if order == OWN else order_name(order)
    if order != OWN:
        recipe = read(row.recipe, (*words, f"scenario.order={_order_for(order, recipe)}"))
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"seed": seed})})
    return Cell(name, row.label, seed, text, recipe, out / name / run_name(seed, order))


def order_text(recipe: Recipe) -> str:
    """The class order of a recipe as text, see `order_name`."""
    return order_name(recipe.scenario.order)


def order_name(order: str | Sequence[int | str]) -> str:
    """The name of a class order; of a list, also one that is written as text, its length and the start of its digest.

    Example:
        >>> order_name("seed:1"), order_name([0, 2, 1, 3]), order_name("[0, 2,1, 3]")
        ('seed:1', 'list of 4 (500599)', 'list of 4 (500599)')
    """
    listed = parse_yaml(order, "--orders") if isinstance(order, str) and order.startswith("[") else order
    return listed if isinstance(listed, str) else f"list of {len(listed)} ({sha256(json.dumps(list(listed)))[:6]})"


def _order_for(order: str, recipe: Recipe) -> str:
    """The value of `scenario.order`; in one step that is scored as another split, a published order as a list of ids."""
    scenario = recipe.scenario
    published = published_orders().get((recipe.data.dataset, scenario.scored_as or scenario.split, order))
    return order if published is None or scenario.scored_as is None else str(list(published))
