"""Which keys of a recipe have an effect: warm-ups, and the seed of a memory."""

import pytest

from contseg.recipes.effect import without_effect
from contseg.recipes.read import is_of_published_data, read_recipe, recipe_names, resolve

WARM_UPS = ["training.warmup", "training.backbone_warmup"]


@pytest.mark.parametrize(("schedule", "idle"), [("warm-twice", []), ("warm-poly", WARM_UPS[1:]), ("poly", WARM_UPS)])
def test_warm_ups_belong_to_their_schedules(schedule, idle):
    recipe = read_recipe("digits/plop_5-1", [f"training.schedule={schedule}"])
    assert list(without_effect(recipe, [*WARM_UPS, "training.power"])) == idle


def test_a_number_of_updates_replaces_the_share():
    keys = ["training.schedule=warm-twice", "training.warmup_updates=3", "training.backbone_warmup_updates=4"]
    recipe = read_recipe("digits/plop_5-1", keys)
    assert (
        list(without_effect(recipe, [*WARM_UPS, "training.warmup_updates", "training.backbone_warmup_updates"])) == WARM_UPS
    )


def test_a_balanced_memory_draws_nothing():
    keys = ["scenario.memory.size=4", "scenario.memory.choice=balanced"]
    assert list(without_effect(read_recipe("digits/ssul_5-1", keys), ["scenario.memory.seed"])) == ["scenario.memory.seed"]


@pytest.mark.parametrize("name", [name for name in recipe_names() if is_of_published_data(name) and "/idrnet" not in name])
def test_no_recipe_sets_a_key_without_effect(name):
    resolved = resolve(name)
    assert without_effect(resolved.recipe, resolved.origins) == {}
