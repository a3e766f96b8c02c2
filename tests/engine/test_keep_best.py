"""`keep: best` returns the epoch that did best on held-out training images."""

import json

import numpy as np
import pytest
import torch

from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.models.segmenter import Segmenter
from tests.engine.runs import interrupted, learn, lines, same, tiny_recipe, weights

BEST = ("training.keep=best", "scenario.validation=0.25", "training.epochs=4", "scenario.split=offline")


@pytest.fixture
def scripted(monkeypatch):
    """Scores of the epochs as told, instead of those that a tiny network would reach; keeps each epoch's weights."""
    kept: list[dict] = []

    def script(scores: list[float]) -> list[dict]:
        def measured(segmenter: Segmenter, batches, classes, on_batch=None, inference=None):
            kept.append({name: value.clone() for name, value in segmenter.state_dict().items()})
            names.extend(name for batch in batches for name in batch.names)
            right = scores[len(kept) - 1]
            confusion = np.diag([round(100 * right)] * classes)
            confusion[:, 0] += 100 - round(100 * right)
            return torch.from_numpy(confusion)

        monkeypatch.setattr("contseg.engine.step.evaluate", measured)
        return kept

    names: list[str] = []
    script.names = names  # type: ignore[attr-defined]
    return script


@pytest.mark.parametrize(("scores", "best"), [([0.1, 0.6, 0.2, 0.3], 1), ([0.1, 0.2, 0.3, 0.4], 3), ([0.5] * 4, 0)])
def test_the_best_epoch_is_kept_and_the_first_of_equals(tmp_path, scripted, scores, best):
    kept = scripted(scores)
    run = learn(tmp_path / "run", tiny_recipe("finetune", *BEST))
    assert len(kept) == 4
    assert same(weights(run, 0), kept[best])


def test_it_is_found_again_after_an_interruption(tmp_path, scripted):
    kept = scripted([0.1, 0.6, 0.2, 0.3])
    interrupted(tmp_path / "run", tiny_recipe("finetune", *BEST), "updated", 15)  # 4 or more in each of the four epochs
    assert Run(tmp_path / "run").load_state(0)["best"]["epoch"] == 1
    run = learn(tmp_path / "run", tiny_recipe("finetune", *BEST))
    assert same(weights(run, 0), kept[1])


def test_it_is_measured_on_images_that_are_neither_trained_nor_tested_on(tmp_path, scripted):
    scripted([0.5] * 4)
    run = learn(tmp_path / "run", tiny_recipe("finetune", *BEST))
    plan = json.loads((run.folder / "plan.json").read_text())
    (step,) = plan["steps"]
    assert len(set(scripted.names)) == step["val_images"] == 18
    assert step["train_images"] == 55
    assert all(name.startswith("train/") for name in scripted.names)


def test_with_last_nothing_is_held_back_for_choosing(tmp_path):
    run = learn(tmp_path / "run", tiny_recipe("finetune", "training.epochs=3"))
    assert [line["epoch"] for line in lines(run, "epoch")] == [0, 1, 2] * 2


def test_it_needs_held_out_images(tmp_path):
    with pytest.raises(ContsegError, match=r"training\.keep: 'best' needs held-out images; set scenario\.validation="):
        learn(tmp_path / "run", tiny_recipe("finetune", "training.keep=best"))


@pytest.mark.parametrize("share", [0.01, 0.995])
def test_a_share_that_leaves_a_step_without_held_out_or_without_training_images_is_an_error(tmp_path, share):
    with pytest.raises(ContsegError, match=r"scenario\.validation"):
        learn(tmp_path / "run", tiny_recipe("finetune", "training.keep=best", f"scenario.validation={share}"))
