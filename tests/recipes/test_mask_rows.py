"""The protocols of methods that classify masks: ADE20K with and without objects, in the published splits."""

import numpy as np
import pytest

from contseg.data.classes import IGNORE
from contseg.data.fake import write_fake
from contseg.dryrun.rehearsal import rehearse
from contseg.recipes.build import make_scenario
from contseg.recipes.published import published_for, published_rows
from contseg.recipes.read import read_recipe, recipe_names
from contseg.recipes.recipe import Recipe

SPLITS = {"100-50": [101, 50], "100-10": [101] + [10] * 5, "100-5": [101] + [5] * 10, "50-50": [51, 50, 50]}
PARTS = {"ade20k": "parts/masks-ade20k", "ade20k-panoptic": "parts/masks-ade20k-panoptic"}

METHODS = ("finetune", "comformer", "balconpas", "simcis", "mib-masks", "plop-masks")
WITH_OBJECTS = [
    f"ade20k-panoptic/{name}"
    for split in SPLITS
    for name in (*(f"{method}_{split}_overlapped" for method in METHODS), f"joint_{split}")
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A synthetic copy of each dataset, with an image for every class."""
    root = tmp_path_factory.mktemp("ade")
    return {name: write_fake(name, root / name, train=150, test=20, size=(32, 32)) for name in PARTS}


def recipe(folder, dataset: str, split: str, *overrides: str) -> Recipe:
    path = folder / f"{dataset}_{split}.yaml"
    path.write_text(f"extends: [{PARTS[dataset]}]\nname: mine\nmethod: {{name: mib}}\nscenario: {{split: {split}}}\n")
    return read_recipe(path, overrides)


@pytest.mark.parametrize("dataset", PARTS)
@pytest.mark.parametrize("split", SPLITS)
def test_steps_have_the_published_widths_and_score_seen_classes_only(tmp_path, folders, dataset, split):
    scenario = make_scenario(recipe(tmp_path, dataset, split, f"data.path={folders[dataset]}"))
    assert [step.new_count for step in scenario] == SPLITS[split]
    assert scenario.order == tuple(range(151))
    for step in scenario:
        assert np.unique(step.test.lookup[list(step.seen_classes[1:])]).tolist() == [*range(1, step.seen_count)]
        unseen = [number for number in (0, *scenario.order) if number not in step.seen_classes[1:]]
        assert {*step.test.lookup[unseen].tolist()} == {IGNORE}
        things = step.train.things
        assert (things is not None) == (dataset == "ade20k-panoptic")
        if things is not None:
            assert np.array(step.seen_classes)[things].tolist() == [
                number for number in step.seen_classes if number in scenario.dataset.classes.things
            ]


def test_published_numbers_of_masks_are_next_to_networks_of_masks_only(tmp_path, monkeypatch):
    for dataset, task in (("ade20k", "miou"), ("ade20k-panoptic", "pq")):
        mine = recipe(tmp_path, dataset, "100-50")
        assert not [row for row in published_for(mine) if row.network]
        monkeypatch.setattr("contseg.recipes.published.classifies_masks", lambda recipe: True)
        monkeypatch.setattr("contseg.recipes.published.method_key", lambda recipe: "simcis")
        (row,) = published_for(mine)
        assert (row.network, row.task) == ("mask2former", task)
        monkeypatch.undo()


def test_every_row_of_masks_names_its_split_and_is_shown_as_what_it_is():
    rows = [row for row in published_rows() if row.network.startswith(("mask2former", "eomt"))]
    assert {row.split for row in rows if row.task == "pq"} == {*SPLITS, "50-10", "50-20", "offline"}
    assert all(row.shown.startswith("PQ ") == (row.task == "pq") for row in rows)


def test_numbers_of_convolutional_networks_are_not_next_to_networks_of_masks(tmp_path, monkeypatch):
    mine = recipe(tmp_path, "ade20k", "100-50", "scenario.setting=partitioned")
    assert published_for(mine), "MiB's own, of a convolutional network"
    monkeypatch.setattr("contseg.recipes.published.classifies_masks", lambda recipe: True)
    assert published_for(mine) == []


def test_every_semantic_recipe_of_masks_but_the_frozen_bound_has_one_with_objects():
    assert [name for name in recipe_names() if name.startswith("ade20k-panoptic/")] == sorted(WITH_OBJECTS)


@pytest.mark.parametrize("name", WITH_OBJECTS)
def test_a_recipe_with_objects_is_the_semantic_one_at_640_pixels(name):
    system, split, *_ = name.partition("/")[2].split("_")
    other = f"ade20k/{name.partition('/')[2]}"
    if system in ("finetune", "joint"):
        other = other.replace(system, f"{system}-eomt")
    mine, semantic = read_recipe(name), read_recipe(other)
    assert (mine.data.dataset, mine.data.crop, mine.network.backbone.size, mine.evaluation.crop) == (
        "ade20k-panoptic", 640, 640, 640
    )  # fmt: skip
    assert (mine.training, mine.scenario) == (semantic.training, semantic.scenario)
    own = {
        ("comformer", "100-50"): {"distillation": 5.0},
        ("simcis", "100-50"): {"virtual": 0, "power": 0.5},
        ("simcis", "100-5"): {"virtual": 5},
    }
    assert mine.method == semantic.method | own.get((system, split), {})
    published = published_for(mine)
    assert {row.task for row in published} <= {"pq"}
    assert bool(published) == (system != "joint" or split == "100-10")


class TestRehearsals:
    """Recipes with objects on synthetic data, at a quarter of their crop: one, and those of a split in slow tests."""

    @pytest.fixture(scope="class")
    def stand_ins(self, tmp_path_factory):
        """Images that rehearsals share."""
        return tmp_path_factory.mktemp("stand-ins")

    def test_one_passes_with_a_small_backbone(self, stand_ins):
        small = ["network.backbone.name=dinov2_reg_tiny", "training.batch=4"]
        told = rehearse("ade20k-panoptic/simcis_100-50_overlapped", small, quarter=True, folder=stand_ins)
        assert told.parameters > 1e5

    @pytest.mark.slow
    @pytest.mark.parametrize("name", [name for name in WITH_OBJECTS if "_100-5_" in name or name.endswith("/joint_100-5")])
    def test_more_pass(self, name, stand_ins):
        assert rehearse(name, ["training.batch=4"], quarter=True, folder=stand_ins).parameters > 8e7
