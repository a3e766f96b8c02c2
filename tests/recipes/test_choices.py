"""What a recipe leaves to the machine is chosen there and said; it changes nothing that is learned."""

import os
import shutil
from collections import namedtuple

import pytest
import torch

from contseg.engine import devices
from contseg.engine.devices import workers_of
from contseg.engine.options import TrainingOptions
from contseg.models.backbones.options import ResNetOptions
from contseg.recipes.choices import choices
from contseg.recipes.read import read_recipe, recipe_names
from tests.conftest import TINY
from tests.engine.runs import command, learn, lines, tiny_recipe

Usage = namedtuple("Usage", "free")
RANDOM = "the network starts from random weights"


@pytest.mark.parametrize(
    ("cores", "ranks", "free", "workers"),
    [(1, 1, 1 << 34, 0), (2, 1, 1 << 34, 1), (16, 1, 1 << 34, 8), (16, 4, 1 << 34, 3), (16, 1, 1 << 24, 0)],
)
def test_workers_follow_the_cores_of_a_rank_and_the_memory_to_share(monkeypatch, cores, ranks, free, workers):
    monkeypatch.setattr(devices, "cores", lambda: cores)
    monkeypatch.setattr(os.path, "isdir", lambda path: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free))
    assert workers_of(TrainingOptions(workers="auto", devices=ranks, batch=ranks)) == workers


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("folder/")])
def test_recipes_for_own_images_choose_by_the_machine_and_say_so(monkeypatch, name, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(devices, "cores", lambda: 6)
    first, second = choices(read_recipe(name))
    kind, precision = ("cuda", "16-mixed") if gpu else ("cpu", "32")
    assert first.startswith(f"chosen for this machine ({kind}, ")
    assert first.endswith(f" cores): training.workers=5, training.precision={precision}")
    assert second.startswith(RANDOM)
    assert "backbone_weights=FILE with ImageNet weights of resnet18, or start_from=FOLDER" in second


def test_no_weights_are_named_that_are_not_published():
    tiny = ["data.dataset=folder", "data.options={}", "data.path=x"]
    line = choices(read_recipe("digits/comformer_5-1", tiny))[-1]
    assert line == "the network starts from random weights; set start_from=FOLDER with a trained segmenter"


def test_no_imagenet_weights_are_named_for_a_backbone_of_ones_own():
    class Tiny(ResNetOptions):
        """Defined outside contseg."""

    recipe = read_recipe("folder/mib")
    network = recipe.network.model_copy(update={"backbone": Tiny(name="resnet18")})
    line = choices(recipe.model_copy(update={"network": network}))[-1]
    assert "set backbone_weights=FILE if you have pretrained weights, or start_from=FOLDER" in line


@pytest.mark.parametrize(
    ("overrides", "said"), [((), True), (("backbone_weights=a.pth",), False), (("start_from=a",), False)]
)
def test_random_weights_are_said_where_there_are_no_others(overrides, said):
    assert any(line.startswith(RANDOM) for line in choices(read_recipe("folder/plop", overrides))) == said


def test_it_is_said_before_training(make_folder, tmp_path):
    options = [*TINY, f"data.path={make_folder(12)}", "data.options={}", "training.epochs=1", "network.width=4"]
    code, said, _ = command(
        "train", "folder/finetune", *options, "scenario.split=2-1", "--out", tmp_path / "run", "--no-cache"
    )
    assert code == 0
    first, second, *_ = said.strip().splitlines()
    assert first.startswith("chosen for this machine (")
    assert second.startswith(RANDOM)
    assert "workers: auto" in (tmp_path / "run" / "recipe.yaml").read_text()
    code, said, _ = command("train", "--resume", tmp_path / "run", "--no-cache")
    assert (code, RANDOM in said) == (0, False)
    assert said.strip().startswith("chosen for this machine (")


def test_what_is_learned_is_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "cores", lambda: 2)
    runs = [
        learn(tmp_path / str(workers), tiny_recipe("finetune", "training.epochs=1", f"training.workers={workers}"))
        for workers in (0, "auto")
    ]
    assert lines(runs[0]) == lines(runs[1])
