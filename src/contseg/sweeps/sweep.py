"""The description of a sweep, `sweep.yaml`: recipes x settings x seeds x class orders."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from contseg.engine.inputs import FREE
from contseg.engine.options import MACHINE_KEYS
from contseg.errors import ContsegError
from contseg.options import Options, Seed
from contseg.recipes.read import read_recipe
from contseg.scenarios.orders import published_orders
from contseg.sweeps.beside import Kind, beside_rows
from contseg.sweeps.cells import OWN, Cell, Row, cells_of, order_name, order_text, safe_name
from contseg.sweeps.description import read_description, repeated, write_description

FILE = "sweep.yaml"
ELSEWHERE = {
    "training.seed": "--seeds (seeds in sweep.yaml)",
    "scenario.order": "--orders (orders in sweep.yaml)",
    **dict.fromkeys(FREE, "one value for all runs"),
    **{f"training.{key}": "one value for all runs, as it does not change what they compute" for key in MACHINE_KEYS},
}
"""Keys that cannot be varied, and what to use."""

MOST = 100_000
"""Seeds or class orders of a number."""

Number = Annotated[int, Field(ge=0, le=MOST)]


class Sweep(Options):
    """The product of what is listed: one run per recipe, value of each varied key, seed and class order.

    Attributes:
        recipes: names or files; a relative file is relative to `sweep.yaml`.
        seeds: a list, or a number N for 0 to N - 1.
        orders: values of `scenario.order` or `own`, the order of the recipe; or a number N: the recipe's own and N - 1
            others, the published ones where the dataset and split have them (VOC 15-1: b, c, ...), else seed:1, seed:2, ...
        vary: key to its values.
        beside: `with` in the file: `joint` training and `finetune` (fine-tuning) on the network and data of each recipe.
        overrides: KEY=VALUE of every recipe.
        plugins: of every recipe.

    Example:
        >>> sweep = Sweep(recipes=["digits/mib_5-1"], seeds=2, orders=2, vary={"training.lr": [0.1, 0.2]})
        >>> list(sweep.rows()), len(sweep.cells(Path("out")))
        (['digits-mib_5-1,training.lr=0.1', 'digits-mib_5-1,training.lr=0.2'], 8)
    """

    model_config = ConfigDict(populate_by_name=True)

    recipes: list[str] = Field(examples=["[digits/mib_5-1]"])
    seeds: Number | list[Seed] = Field(3, examples=["3, or [0, 7]"])
    orders: Number | list[str] = Field(1, examples=["2, or [own, seed:1]"])
    vary: dict[str, list[Any]] = Field({}, examples=["{training.lr: [0.1, 0.01]}"])
    beside: list[Kind] = Field([], alias="with", examples=["[joint, finetune]"])
    overrides: list[str] = Field([], examples=["[training.epochs=9]"])
    plugins: list[str] = Field([], examples=["[mine.py]"])

    @classmethod
    def read(cls, path: Path) -> "Sweep":
        """Read `sweep.yaml` of a folder, or a file.

        Raises:
            ContsegError: it is missing, or is not such a file.
        """
        path = path / FILE if path.is_dir() else path
        return read_description(cls, path, "recipes", "sweep").relative_to(path)

    def relative_to(self, path: Path) -> "Sweep":
        """The same sweep with files of recipes and plugins that are relative to a file as absolute paths."""

        def whole(name: str) -> str:
            place = path.parent / name
            return str(place.resolve()) if place.is_file() else name

        return self.model_copy(
            update={
                "recipes": [whole(name) for name in self.recipes],
                "plugins": [whole(name) for name in self.plugins],
            }
        )

    def write(self, folder: Path) -> None:
        """Write `sweep.yaml` atomically, unless it describes this sweep already."""
        if (folder / FILE).is_file() and Sweep.read(folder) == self:
            return
        write_description(self, folder / FILE)

    @property
    def chosen_seeds(self) -> tuple[int, ...]:
        """The seeds in ascending order."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(sorted(self.seeds))

    def settings(self) -> Iterator[tuple[str, ...]]:
        """Every combination of the varied values, as overrides."""
        return itertools.product(*([override(key, value) for value in values] for key, values in self.vary.items()))

    def rows(self) -> dict[str, Row]:
        """Name of each row, which is its folder, to row: recipes x settings, then what runs next to them.

        Raises:
            ContsegError: nothing is listed, a key cannot be varied, two rows have the same name, or a recipe is invalid.
        """
        self._require_varied()
        shared = [*self.overrides, *([f"plugins={self.plugins}"] if self.plugins else [])]
        found: dict[str, tuple[str, str, tuple[str, ...]]] = {}
        for recipe, chosen in itertools.product(self.recipes, list(self.settings())):
            place = Path(recipe)
            short = place.stem if place.is_file() else recipe
            name = safe_name(",".join([short, *chosen]))
            if name in found:
                raise ContsegError(f"sweep: two rows would be named {name}; rename a recipe file")
            found[name] = (" ".join([short, *chosen]), recipe, (*chosen, *shared))
        orders = self._orders(shared)
        rows = {}
        for name, (label, recipe, overrides) in found.items():
            own = order_text(read_recipe(recipe, overrides))
            named = tuple(dict.fromkeys(OWN if order_name(order) == own else order for order in orders))
            rows[name] = Row(label, recipe, overrides, self.chosen_seeds, named)
        return rows | beside_rows(self.beside, rows)

    def cells(self, folder: Path) -> list[Cell]:
        """All runs in a folder, seed by seed.

        Raises:
            ContsegError: see `rows`.
        """
        return cells_of(self.rows(), (), folder)

    def _require_varied(self) -> None:
        for key, values in self.vary.items():
            if advice := ELSEWHERE.get(key):
                raise ContsegError(f"--vary: {key} cannot be varied; use {advice}")
            if not values:
                raise ContsegError(f"--vary: {key} has no values; list some, such as {key}=0.1,0.01")
        counts = {"recipe": self.recipes, "seed": self.seeds, "class order": self.orders}
        for what, listed in counts.items():
            if not listed:
                raise ContsegError(f"sweep: no {what} is listed, so there is nothing to run; name at least one {what}")
        lists = {"recipes": self.recipes, "--seeds": self.seeds, "--orders": self.orders, "--with": self.beside}
        for what, values in (lists | {f"--vary: {key}": values for key, values in self.vary.items()}).items():
            if isinstance(values, list) and (value := repeated(values)) is not None:
                raise ContsegError(f"{what}: {value} is listed twice; remove one of them")

    def _orders(self, shared: Sequence[str]) -> list[str]:
        """The orders of a list, or of a number."""
        if not isinstance(self.orders, int):
            return self.orders
        protocols = set()
        for recipe in self.recipes if self.orders > 1 else ():
            read = read_recipe(recipe, shared)
            if read.scenario.by == "domain":
                raise ContsegError(
                    f"--orders: {recipe} has steps by domain, whose order is scenario.domains, not a class order; vary"
                    " scenario.domains instead"
                )
            protocols.add((read.data.dataset, read.scenario.scored_as or read.scenario.split))
        published = [letter for *protocol, letter in published_orders() if {tuple(protocol)} == protocols]
        seeded = [f"seed:{number}" for number in range(1, self.orders - len(published))]
        return [OWN, *published, *seeded][: self.orders]


def override(key: str, value: Any) -> str:
    """KEY=VALUE of a value from YAML.

    Example:
        >>> override("training.epochs", [9, 5]), override("network.backbone", "resnet18")
        ('training.epochs=[9, 5]', 'network.backbone=resnet18')
    """
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"
