"""Reference runs next to the recipes of a sweep: joint training and fine-tuning on the same network and data."""

from collections.abc import Mapping, Sequence
from typing import Literal

from contseg.engine.inputs import recipe_changes
from contseg.errors import ContsegError
from contseg.recipes.read import read_recipe
from contseg.recipes.recipe import Recipe
from contseg.sweeps.cells import Row

Kind = Literal["joint", "finetune"]


def beside_rows(kinds: Sequence[Kind], rows: Mapping[str, Row]) -> dict[str, Row]:
    """The reference rows of some rows: one per kind and network, data and training; rows that differ in the method share it.

    A row that learns later steps without updates uses the fine-tuning of another one.

    Raises:
        ContsegError: no row has later steps with updates, which fine-tuning needs, or joint training of a row would start
            from its trained model.
    """
    found: dict[str, Row] = {}
    for kind in dict.fromkeys(kinds):
        known: list[Recipe] = [read_recipe(row.recipe, row.overrides) for row in rows.values()]
        made = 0
        for name, row in rows.items():
            recipe = read_recipe(row.recipe, row.overrides)
            if kind == "finetune" and not recipe.training.epochs_of(1) and recipe.scenario.split != "offline":
                continue
            if kind == "joint" and recipe.start_from:
                raise ContsegError(f"--with joint: {row.label} starts from a trained model; name its joint training as well")
            overrides = _reference(kind, row, recipe)
            reference = read_recipe(row.recipe, overrides)
            made += 1
            if any(_equal(reference, other) for other in known):
                continue
            known.append(reference)
            first = kind not in found
            label = kind if first else f"{kind} ({row.label})"
            found[kind if first else f"{kind},{name}"] = Row(label, row.recipe, overrides, row.seeds, row.orders)
        if not made:
            raise ContsegError(
                f"--with {kind}: no recipe has epochs in later steps; name the recipe of fine-tuning as well, or remove it"
            )
    return found


def joint_of(name: str, rows: Mapping[str, Row]) -> str | None:
    """The row of joint training on the network and data of a row; None without such a row, or for that row itself.

    One step has all images in any setting, so the setting may differ.

    Example:
        >>> mib = Row("MiB", "digits/mib_5-1")
        >>> rows = {"mib": mib, "joint": beside_rows(["joint"], {"mib": mib})["joint"]}
        >>> joint_of("mib", rows), joint_of("joint", rows)
        ('joint', None)
    """
    row = rows[name]
    recipe = read_recipe(row.recipe, row.overrides)
    if recipe.start_from or recipe.scenario.split == "offline":
        return None
    joint = read_recipe(row.recipe, _reference("joint", row, recipe)).model_dump(mode="json")
    for other, one in rows.items():
        if set(recipe_changes(joint, read_recipe(one.recipe, one.overrides).model_dump(mode="json"))) <= {
            "scenario.setting"
        }:
            return other
    return None


def _reference(kind: Kind, row: Row, recipe: Recipe) -> tuple[str, ...]:
    """The overrides of the reference of a row."""
    return (*_without_method(row.overrides), *changes(kind, recipe))


def changes(kind: Kind, recipe: Recipe) -> tuple[str, ...]:
    """The overrides that make joint training or fine-tuning of a recipe.

    Joint training learns all classes in one step with the epochs of step 0, as published, and is scored as the split.
    """
    if kind == "finetune" or recipe.scenario.split == "offline":
        return ("method.name=finetune",)
    scenario = recipe.scenario
    words = ["method.name=finetune", "scenario.split=offline", f"training.epochs={recipe.training.epochs_of(0)}"]
    words += [f"scenario.scored_as={scenario.split}"] if scenario.by == "class" else []
    words += ["scenario.memory=null"] if scenario.memory else []
    words += ["scenario.lists=null"] if scenario.lists else []
    return tuple(words)


def _without_method(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides of everything but the method, whose hyper-parameters fine-tuning does not have."""
    return tuple(word for word in overrides if not word.startswith(("method.", "method=")))


def _equal(one: Recipe, other: Recipe) -> bool:
    return not recipe_changes(one.model_dump(mode="json"), other.model_dump(mode="json"))
