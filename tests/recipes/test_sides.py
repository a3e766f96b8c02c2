"""A flip exchanges left and right: a step that labels one of them alone cannot be flipped."""

import numpy as np
import pytest
from PIL import Image

from contseg.data.dataset import SegmentationDataset
from contseg.errors import ContsegError
from contseg.recipes.build import make_job, make_pipelines, make_scenario
from contseg.recipes.read import read_recipe
from tests.engine.runs import tiny_recipe
from tests.trees.official import lip


def recipe_with(*overrides: str):
    return tiny_recipe("finetune", "data.flip=0.5", *overrides)


def test_a_step_that_labels_one_side_alone_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(SegmentationDataset, "mirror", ((1, 2), (5, 6)))  # 5 is of step 0, 6 of step 1
    with pytest.raises(ContsegError, match=r"data\.flip: step 0 labels .* and not .*; set data\.flip=0"):
        make_job(recipe_with(), tmp_path)


@pytest.mark.parametrize(
    "change", ["data.flip=0", "scenario.order=[0, 5, 6, 1, 2, 3, 4, 7, 8, 9, 10]", "scenario.split=offline"]
)
def test_it_is_trained_without_flips_or_with_both_sides_in_one_step(tmp_path, monkeypatch, change):
    monkeypatch.setattr(SegmentationDataset, "mirror", ((1, 2), (5, 6)))
    make_job(recipe_with(change), tmp_path)


@pytest.fixture
def lip_recipe(tmp_path):
    """LIP with arms (14, 15) and legs (16, 17) in steps of their own, and a flip of every sample."""
    dataset = lip(tmp_path / "lip")
    for part in ("train", "val"):
        for path in (dataset.root / f"{part}_segmentations").iterdir():
            mask = np.asarray(Image.open(path)).copy()
            mask[:20, :10] = np.arange(20)[:, None]
            Image.fromarray(mask).save(path)
    order = [0, *range(1, 14), 18, 19, 14, 15, 16, 17]

    def make(split: str):
        overrides = [f"data.path={str(dataset.root)!r}", f"scenario.split={split}", f"scenario.order={order}", "data.flip=1"]
        return read_recipe("folder/finetune", ["data={dataset: lip}", *overrides])

    return make


def test_sides_of_other_steps_stay_hidden_in_a_flip(lip_recipe):
    """Arms are new, legs come later: flipped arms change places, flipped legs are background."""
    recipe = lip_recipe("15-2-2")
    scenario = make_scenario(recipe)
    pipeline, _ = make_pipelines(
        recipe.model_copy(update={"data": recipe.data.model_copy(update={"crop": 24})}), scenario.dataset
    )
    step = scenario[1]
    mask = np.zeros((24, 24), np.uint8)
    mask[:, 0:6], mask[:, 6:12], mask[:, 12:18] = 14, 15, 16
    seen = set()
    for seed in range(4):
        _, layers = pipeline(np.zeros((24, 24, 3), np.uint8), {"mask": mask}, np.random.default_rng(seed))
        seen |= set(np.unique(step.train.labels(layers)))
    left, right = step.seen_classes.index(14), step.seen_classes.index(15)
    assert seen <= {0, left, right}
    assert seen & {left, right}


def test_arms_in_two_steps_are_refused_and_published_offline_use_is_not(lip_recipe, tmp_path):
    with pytest.raises(ContsegError, match=r"data\.flip: step 1 labels left.arm and not right.arm, which"):
        make_job(lip_recipe("15-1-1-2"), tmp_path)
    make_job(lip_recipe("15-2-2"), tmp_path)
    make_job(lip_recipe("offline"), tmp_path)
