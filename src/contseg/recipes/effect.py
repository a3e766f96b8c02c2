"""Keys of a recipe that have no effect together with its other keys."""

from collections.abc import Callable, Iterable

from contseg.recipes.recipe import Recipe

FALLING = ("poly", "warm-poly", "warm-twice")
WARM = ("warm-poly", "warm-twice")

CONDITIONS: dict[str, tuple[str, Callable[[Recipe], bool]]] = {
    "training.momentum": ("training.optimiser=sgd", lambda recipe: recipe.training.optimiser == "sgd"),
    "training.nesterov": ("training.optimiser=sgd", lambda recipe: recipe.training.optimiser == "sgd"),
    "training.betas": ("training.optimiser=adamw", lambda recipe: recipe.training.optimiser == "adamw"),
    "training.power": ("training.schedule=poly or warm-poly", lambda recipe: recipe.training.schedule in FALLING),
    "training.floor": ("training.schedule=poly or warm-poly", lambda recipe: recipe.training.schedule in FALLING),
    "training.warmup": (
        "training.schedule=warm-poly, or together with training.warmup_updates",
        lambda recipe: recipe.training.schedule in WARM and recipe.training.warmup_updates is None,
    ),
    "training.warmup_updates": ("training.schedule=warm-poly", lambda recipe: recipe.training.schedule in WARM),
    "training.backbone_warmup": (
        "training.schedule=warm-twice, or together with training.backbone_warmup_updates",
        lambda recipe: recipe.training.schedule == "warm-twice" and recipe.training.backbone_warmup_updates is None,
    ),
    "training.backbone_warmup_updates": (
        "training.schedule=warm-twice",
        lambda recipe: recipe.training.schedule == "warm-twice",
    ),
    "training.warmup_ratio": (
        "training.schedule=warm-poly and training.warmup_updates",
        lambda recipe: recipe.training.schedule == "warm-poly" and recipe.training.warmup_updates is not None,
    ),
    "training.milestones": (
        "training.schedule=step, or together with training.milestone_every",
        lambda recipe: recipe.training.schedule == "step" and recipe.training.milestone_every is None,
    ),
    "training.milestone_every": ("training.schedule=step", lambda recipe: recipe.training.schedule == "step"),
    "training.gamma": ("training.schedule=step", lambda recipe: recipe.training.schedule == "step"),
    "scenario.ratio_choice": ("a scenario.ratio below 1", lambda recipe: recipe.scenario.ratio < 1),
    "scenario.memory.share": (
        "scenario.memory.mix=share",
        lambda recipe: recipe.scenario.memory is not None and recipe.scenario.memory.mix == "share",
    ),
    "scenario.memory.seed": (
        "scenario.memory.choice=turns",
        lambda recipe: recipe.scenario.memory is not None and recipe.scenario.memory.choice == "turns",
    ),
    "evaluation.crop": ("evaluation.mode=slide", lambda recipe: recipe.evaluation.mode != "whole"),
    "evaluation.stride": ("evaluation.mode=slide", lambda recipe: recipe.evaluation.mode == "slide"),
    "evaluation.antialias": (
        "evaluation.fit or evaluation.resize",
        lambda recipe: (recipe.evaluation.fit or recipe.evaluation.resize) is not None,
    ),
    "evaluation.undecided": (
        "network.head.decision=owner or owner-simcis, and a network.background other than constant",
        lambda recipe: recipe.network.leaves_undecided,
    ),
    "evaluation.windows": ("evaluation.mode=slide", lambda recipe: recipe.evaluation.mode != "whole"),
}
"""Key to the condition under which it has an effect: in words, and as a function of the recipe."""


def without_effect(recipe: Recipe, keys: Iterable[str]) -> dict[str, str]:
    """The keys among `keys` that have no effect in a recipe, with the condition that each needs.

    Keys that a part of the network or a dataset does not have are refused when the recipe is read.

    Example:
        >>> from contseg.recipes.read import read_recipe
        >>> without_effect(read_recipe("digits/plop_5-1"), ["training.betas", "training.momentum", "data.flip"])
        {'training.betas': 'training.optimiser=adamw'}
    """
    return {key: CONDITIONS[key][0] for key in keys if key in CONDITIONS and not CONDITIONS[key][1](recipe)}
