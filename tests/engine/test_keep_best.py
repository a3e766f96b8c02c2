"""`keep: best` returns the epoch that did best on held-out training images."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from contseg.data.datasets.digits import Digits
from contseg.engine.best_epoch import validation_rows, validation_scope, validation_score
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.evaluation.confusion import confusion_matrix
from contseg.methods.finetune import Finetune
from contseg.models.segmenter import Segmenter
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import Scenario
from tests.engine.runs import Watching, interrupted, learn, lines, same, tiny_recipe, weights

BEST = ("training.keep=best", "scenario.validation=0.25", "training.epochs=4", "scenario.split=offline")


@pytest.fixture
def scripted(monkeypatch):
    """Scores of the epochs as told, instead of those that a tiny network would reach; keeps each epoch's weights."""
    kept: list[dict] = []

    def script(scores: list[float]) -> list[dict]:
        def measured(segmenter: Segmenter, batches, classes, on_batch=None, inference=None, together=1):
            kept.append({name: value.clone() for name, value in segmenter.state_dict().items()})
            names.extend(name for batch in batches for name in batch.names)
            right = scores[len(kept) - 1]
            confusion = np.diag([round(100 * right)] * classes)
            confusion[:, 0] += 100 - round(100 * right)
            return torch.from_numpy(confusion)

        monkeypatch.setattr("contseg.engine.measure.evaluate", measured)
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
    assert Run(tmp_path / "run").load_state(0).best["epoch"] == 1
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


@dataclass(frozen=True)
class Counting(Finetune):
    """Remembers how many updates it has seen, in place."""

    name = "counting"

    def after_update(self, context):
        self.state.setdefault("updates", torch.zeros(())).add_(1)


@pytest.mark.parametrize("cut_off", [False, True])
def test_what_the_method_remembers_is_of_the_epoch_that_is_kept(tmp_path, scripted, cut_off):
    scripted([0.1, 0.6, 0.2, 0.3])
    recipe = tiny_recipe("finetune", *BEST)
    if cut_off:
        interrupted(tmp_path / "run", recipe, "updated", 17, method=Counting())  # in the last of four epochs
    run = learn(tmp_path / "run", recipe, method=Counting())
    assert run.load_state(0).method["updates"] == 10  # after two epochs of five updates


class TestLaterSteps:
    """Background, old classes 1 to 5 and new ones from 6 on; only the new ones are annotated in held-out images."""

    @pytest.fixture(scope="class", params=["plop", "ssul", "mib"])
    def step(self, request):
        options = ScenarioOptions(split="5-5", policy=request.param, validation=0.5)
        return Scenario(Digits(train=80, test=10), options)[1]

    @staticmethod
    def score(step, predict):
        """Of a predictor, a function of the true classes of an image."""
        place = np.full(256, 0)
        place[list(step.seen_classes)] = range(step.seen_count)
        confusion = torch.zeros(validation_rows(step), validation_rows(step), dtype=torch.int64)
        for index in range(len(step.val)):
            _, layers = step.val.read(index)
            said = torch.from_numpy(predict(place[layers["mask"]].copy()))
            confusion += confusion_matrix(torch.from_numpy(step.val.labels(layers).copy()), said, validation_rows(step))
        return validation_score(confusion.numpy(), step)

    def test_a_perfect_predictor_has_the_best_score_there_is(self, step):
        assert self.score(step, lambda truth: truth) == 1

    @pytest.mark.parametrize("wrong", [0, 8], ids=["perfect but for that", "with errors"])
    def test_to_forget_old_classes_changes_nothing(self, step, wrong):
        def knows(truth):
            truth[:wrong] = 7  # a new class where it is not
            truth[wrong : 2 * wrong] = 2  # and an old one
            return truth

        def forgot(truth):
            truth = knows(truth)
            return np.where(truth < step.old_count, 0, truth)

        assert self.score(step, knows) == self.score(step, forgot)
        assert (self.score(step, knows) == 1) == (wrong == 0)

    def test_new_classes_must_be_found_and_must_not_be_seen_everywhere(self, step):
        assert self.score(step, lambda truth: np.where(truth == 6, 0, truth)) < 1
        assert self.score(step, lambda truth: np.where(truth == 6, 2, truth)) < 1
        assert self.score(step, lambda truth: np.where(truth < step.old_count, 6, truth)) < 0.9

    def test_what_the_score_cannot_see_is_said(self, step):
        said = validation_scope(step)
        assert "the 5 classes alone" in said
        assert "the score does not measure forgetting" in said

    def test_a_step_that_labels_old_classes_is_scored_by_all(self):
        options = ScenarioOptions(split="5-5", setting="sequential", policy="mib", validation=0.5)
        step = Scenario(Digits(train=80, test=10), options)[1]
        assert validation_scope(step) is None
        assert self.score(step, lambda truth: np.where(truth < step.old_count, 0, truth)) < 0.7


def test_the_log_says_what_is_compared_and_kept_and_every_epoch_has_its_score(tmp_path, scripted):
    said = []

    class Listening(Watching):
        def message(self, text):
            if not text.startswith("note: "):  # of the data
                said.append(text)

    scripted([0.1, 0.6, 0.5, 0.25])
    options = ("training.keep=best", "scenario.validation=0.25", "training.epochs=2")
    run = learn(tmp_path / "run", tiny_recipe("finetune", *options), reporter=Listening())
    assert [line["validation"] for line in lines(run, "epoch")] == pytest.approx([0.1, 0.6, 0.5, 0.25], abs=0.07)
    assert [text.split(",")[0] for text in said] == [
        "step 0: epoch 1 is kept",
        "step 1: training.keep=best compares epochs by the 5 classes alone",
        "step 1: epoch 0 is kept",
    ]


def test_a_score_that_cannot_be_measured_is_none_and_the_last_epoch_stays(tmp_path, monkeypatch):
    kept = []

    def measured(segmenter, batches, classes, on_batch=None, inference=None, together=1):
        kept.append({name: value.clone() for name, value in segmenter.state_dict().items()})
        return torch.zeros(classes, classes, dtype=torch.int64)

    monkeypatch.setattr("contseg.engine.measure.evaluate", measured)
    run = learn(tmp_path / "run", tiny_recipe("finetune", *BEST))
    assert [line["validation"] for line in lines(run, "epoch")] == [None] * 4
    assert same(weights(run, 0), kept[-1])
