"""What a run watches while it learns: every guard speaks where it should, and is silent elsewhere."""

import shutil
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from contseg.engine.loggers.loggers import Loggers
from contseg.engine.run import Run
from contseg.engine.watch import PseudoLabelCount
from contseg.errors import ContsegError
from contseg.interop.segmenter_file import load_segmenter, save_segmenter
from contseg.methods.finetune import Finetune
from contseg.models.segmenter import Segmenter
from contseg.ranks import Ranks
from tests.engine.runs import Watching, command, interrupted, job_in, learn, lines, same, tiny_recipe, weights

SHORT = ("training.epochs=1",)
ONE_STEP = (*SHORT, "scenario.split=offline")


class Listening(Watching):
    """Keeps messages."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        if not text.startswith("note: "):  # of the data
            self.messages.append(text)


@dataclass(frozen=True)
class Answering(Finetune):
    """Ends step k with a segmenter that says `answers[k]` everywhere."""

    answers: tuple[int, ...] = ()

    def after_step(self, context):
        steps = context.student.classifier.steps
        for part in steps:
            part.weight.data.zero_()
            part.bias.data.zero_()
        place = self.answers[context.step.index]
        for part in steps:
            if place in range(len(part.bias)):
                part.bias.data[place] = 1
            place -= len(part.bias)


class TestBackground:
    def learned(self, folder, *answers, overrides=()) -> tuple[Run, Listening]:
        listening = Listening()
        recipe = tiny_recipe("finetune", *SHORT, *overrides)
        return learn(folder, recipe, method=Answering(answers=answers), reporter=listening), listening

    def test_a_collapse_is_said_written_and_shown(self, tmp_path):
        run, listening = self.learned(tmp_path / "run", 0, 7)
        (warning,) = lines(run, "step")[1]["warnings"]
        assert warning.startswith("background fell by more than half: IoU ")
        assert "-> 0.0%" in warning
        assert "100% of it is predicted as 'six'" in warning
        assert listening.messages == [f"after step 1: {warning}"]
        assert lines(run, "step")[0]["warnings"] == []
        assert command("report", run.folder)[0] == 0
        page = (run.folder / "report.html").read_text()
        assert page.count('<p class="warning">') == 1
        assert "after step 1: background fell by more than half" in page

    def test_a_background_that_stays_is_not_spoken_of(self, tmp_path):
        run, listening = self.learned(tmp_path / "run", 0, 0)
        assert [line["warnings"] for line in lines(run, "step")] == [[], []]
        assert listening.messages == []
        command("report", run.folder)
        assert '<p class="warning">' not in (run.folder / "report.html").read_text()

    def test_each_step_is_compared_with_the_one_before(self, tmp_path):
        run, _ = self.learned(tmp_path / "run", 0, 7, 0, 0, overrides=["scenario.split=5-2-2-1"])
        assert [len(line["warnings"]) for line in lines(run, "step")] == [0, 1, 0, 0]

    def test_a_scenario_without_background_has_none_to_lose(self, tmp_path, monkeypatch):
        monkeypatch.setattr("contseg.data.datasets.digits.Digits.counts_background", True)
        run, listening = self.learned(tmp_path / "run", 0, 7, overrides=["scenario.split=6-5"])
        assert not run.has_background()
        assert lines(run, "step")[1]["warnings"] == []
        assert listening.messages == []

    def test_an_interrupted_run_says_the_same(self, tmp_path):
        whole, _ = self.learned(tmp_path / "whole", 0, 7)
        recipe, method = tiny_recipe("finetune", *SHORT), Answering(answers=(0, 7))
        interrupted(tmp_path / "run", recipe, "updated", 6, method=method)  # in step 1
        assert lines(learn(tmp_path / "run", recipe, method=method)) == lines(whole)


class TestTeacher:
    """The segmenter of the step before is read from its file after an interruption.

    These runs did not record its SHA-256, as in earlier versions: otherwise, another file is found by that alone.
    """

    def unrecorded(self, folder, recipe) -> Run:
        interrupted(folder, recipe, "step_finished", 1)
        run = Run(folder)
        run.manifest.forget(run.segmenter_path(0))
        return run

    @pytest.fixture
    def begun(self, tmp_path) -> Run:
        return self.unrecorded(tmp_path / "run", tiny_recipe("plop", *SHORT))

    def resume(self, run: Run) -> Run:
        return learn(run.folder, tiny_recipe("plop", *SHORT))

    def test_whose_classes_are_in_another_order_is_refused(self, begun):
        path = begun.segmenter_path(0)
        segmenter, classes = load_segmenter(path)
        save_segmenter(path, segmenter, classes.subset([0, 1, 3, 2, 4, 5]))
        with pytest.raises(ContsegError) as caught:
            self.resume(begun)
        assert str(caught.value) == (
            f"{path}: has 6 classes where step 1 continues 6; number 2 is 'two' and must be 'one';"
            " restore the file that this run wrote, or start over with --overwrite"
        )

    def test_of_another_step_is_refused(self, begun, tmp_path):
        other = learn(tmp_path / "other", tiny_recipe("plop", *SHORT))
        shutil.copy(other.segmenter_path(1), begun.segmenter_path(0))
        with pytest.raises(ContsegError, match=r"00/segmenter.*: has 11 classes.* number 6 is 'five' and must be nothing;"):
            self.resume(begun)

    def test_that_knows_too_little_is_refused(self, begun, tmp_path):
        other = learn(tmp_path / "other", tiny_recipe("finetune", *SHORT, "scenario.split=4-6"))
        shutil.copy(other.segmenter_path(0), begun.segmenter_path(0))
        with pytest.raises(ContsegError, match=r"has 5 classes where step 1 continues 6; number 5 is nothing and must be"):
            self.resume(begun)

    def test_with_an_output_too_many_is_refused(self, begun):
        path = begun.segmenter_path(0)
        segmenter, classes = load_segmenter(path)
        options = segmenter.options.model_copy(update={"unknown": True})
        save_segmenter(path, Segmenter(options, [1, 1, 5]), classes)
        with pytest.raises(ContsegError, match=r"has 7 outputs where step 1 continues 6 \(6 classes\); restore"):
            self.resume(begun)

    def test_without_the_output_unknown_is_refused(self, tmp_path):
        recipe = tiny_recipe("finetune", *SHORT, "scenario.policy=ssul")
        path = self.unrecorded(tmp_path / "run", recipe).segmenter_path(0)
        segmenter, classes = load_segmenter(path)
        save_segmenter(path, Segmenter(segmenter.options.model_copy(update={"unknown": False}), [6]), classes)
        with pytest.raises(ContsegError, match=r'has 6 outputs .* continues 7 \(6 classes and the output "unknown"\)'):
            learn(tmp_path / "run", recipe)

    def test_that_is_what_the_run_wrote_is_taken(self, begun, tmp_path):
        whole = learn(tmp_path / "whole", tiny_recipe("plop", *SHORT))
        assert same(weights(self.resume(begun)), weights(whole))

    @pytest.mark.parametrize("override", ["scenario.policy=ssul", "scenario.order=seed:3", "scenario.split=4-3-3"])
    def test_is_taken_under_other_scenarios_too(self, tmp_path, override):
        recipe = tiny_recipe("finetune", *SHORT, override)
        interrupted(tmp_path / "run", recipe, "step_finished", 1)
        assert learn(tmp_path / "run", recipe).summary()

    def test_is_not_read_at_all_while_it_is_at_hand(self, tmp_path, monkeypatch):
        monkeypatch.delattr("contseg.engine.teacher.load_segmenter")
        assert learn(tmp_path / "run", tiny_recipe("plop", *SHORT)).summary()["steps"] == 2


class TestTerms:
    @dataclass(frozen=True)
    class Aside(Finetune):
        """Two terms that train nothing, from step 1 on."""

        inert_terms = frozenset({"one", "two", "three"})

        def losses(self, batch, student, teacher, context):
            aside = student.logits.detach().mean()
            more = {"one": aside, "two": 2 * aside} if context.step.index else {}
            return super().losses(batch, student, teacher, context) | more

    def test_that_train_nothing_by_design_are_named_once_in_every_step_that_has_them(self, tmp_path):
        listening = Listening()
        learn(tmp_path / "run", tiny_recipe("finetune", "scenario.split=5-3-2"), method=self.Aside(), reporter=listening)
        assert listening.messages == [
            "step 1: terms one, two train nothing in this variant, by design",
            "step 2: terms one, two train nothing in this variant, by design",
        ]

    def test_that_are_declared_and_do_train_are_an_error(self, tmp_path):
        @dataclass(frozen=True)
        class Wrong(Finetune):
            inert_terms = frozenset({"cross_entropy"})

        with pytest.raises(
            ContsegError,
            match=r"method finetune: term 'cross_entropy' is declared in inert_terms and reaches a trainable parameter"
            r" at step 0; remove it",
        ):
            learn(tmp_path / "run", tiny_recipe("finetune", *ONE_STEP), method=Wrong())

    def test_of_which_none_is_declared_are_not_spoken_of(self, tmp_path):
        listening = Listening()
        learn(tmp_path / "run", tiny_recipe("mib", *SHORT), reporter=listening)
        assert not [text for text in listening.messages if "by design" in text]


class TestLosses:
    @dataclass(frozen=True)
    class BrokenAuxiliary(Finetune):
        """The supervised term of auxiliary outputs, which comes second, is infinite."""

        calls: list[int] = field(default_factory=list, compare=False)

        def supervise(self, output, batch, context):
            self.calls.append(1)
            loss = super().supervise(output, batch, context)
            return loss / 0 if len(self.calls) % 2 == 0 else loss

    def test_auxiliary_ones_are_watched_too(self, tmp_path):
        recipe = tiny_recipe("finetune", *ONE_STEP, "network.auxiliary=true")
        with pytest.raises(ContsegError, match=r"loss is not finite at step 0, epoch 0, batch 0 \(auxiliary_\w+ = inf\)"):
            learn(tmp_path / "run", recipe, method=self.BrokenAuxiliary())

    @pytest.mark.slow
    @pytest.mark.parametrize("at", [1, 3])
    def test_they_are_watched_on_every_rank(self, tmp_path, at):
        recipe = tiny_recipe("finetune", *ONE_STEP, "training.devices=2")
        with pytest.raises(
            ContsegError, match=rf"loss is not finite at step 0, epoch 0, batch {at} \(cross_entropy = inf\)"
        ):
            learn(tmp_path / "run", recipe, method=BrokenOnOneRank(at=at))


@dataclass(frozen=True)
class BrokenOnOneRank(Finetune):
    """The loss of the second process is infinite once, and its gradient is none, so that the others notice nothing."""

    at: int = 0
    seen: list[int] = field(default_factory=list, compare=False)

    def losses(self, batch, student, teacher, context):
        terms = super().losses(batch, student, teacher, context)
        self.seen.append(1)
        if context.ranks.rank == 1 and len(self.seen) == self.at + 1:
            terms["cross_entropy"] = terms["cross_entropy"] * 0 + float("inf")
        return terms


@dataclass(frozen=True)
class Relabelling(Finetune):
    """The upper quarter of every image becomes one class, the lowest row is ignored."""

    needs_teacher = True
    place: int = 3

    def relabel(self, batch, teacher, context):
        if teacher is None:
            return batch
        labels = batch.labels.clone()
        labels[:, : labels.shape[1] // 4] = self.place
        labels[:, -1] = 255
        CHANGED.append([int(((labels == k) & (batch.labels != k)).sum()) for k in (self.place, 255)] + [labels.numel()])
        return batch.relabelled(labels)


CHANGED: list[list[int]] = []


class TestPseudoLabels:
    def test_are_counted_per_class_and_epoch(self, tmp_path):
        CHANGED.clear()
        run = learn(tmp_path / "run", tiny_recipe("finetune", "training.epochs=2"), method=Relabelling())
        epochs = lines(run, "epoch")
        assert ["pseudo" in line for line in epochs] == [False, False, True, True]
        table = load_segmenter(run.segmenter_path(1))[1].names
        for line, batches in zip(epochs[2:], (CHANGED[:4], CHANGED[4:8]), strict=True):
            to, ignored, pixels = np.sum(batches, axis=0)
            assert line["pseudo"] == {table[3]: to / pixels, "ignored": ignored / pixels}
        assert 0.2 < epochs[2]["pseudo"][table[3]] <= 0.25

    def test_of_some_training_images_are_kept_next_to_the_given_labels(self, tmp_path):
        run = learn(tmp_path / "run", tiny_recipe("finetune", *SHORT), method=Relabelling())
        kept = run.arrays("steps/01/label_origins.npz")
        assert not (run.folder / "steps" / "00" / "label_origins.npz").exists()
        step = job_in(tmp_path / "job", tiny_recipe("finetune", *SHORT)).scenario[1]
        assert set(kept["names"]) <= set(step.train.names)
        assert len(kept["names"]) == min(4, len(step.train))
        for number, name in enumerate(kept["names"]):
            _, layers = step.train.read(step.train.names.index(name))
            given, final = kept[f"given{number}"], kept[f"final{number}"]
            assert set(np.unique(given)) <= set(np.unique(step.train.labels(layers)))
            assert kept[f"image{number}"].shape == (*given.shape, 3)
            quarter = given.shape[0] // 4
            assert (final[:quarter] == 3).all()
            assert (final[-1] == 255).all()
            assert (final[quarter:-1] == given[quarter:-1]).all()

    def test_begin_with_the_unknown_where_outputs_do(self, tmp_path):
        run = learn(tmp_path / "run", tiny_recipe("finetune", *SHORT, "scenario.policy=ssul"), method=Relabelling(place=0))
        assert set(lines(run, "epoch")[1]["pseudo"]) <= {"unknown", "ignored"}
        run = learn(tmp_path / "other", tiny_recipe("finetune", *SHORT, "scenario.policy=ssul"), method=Relabelling(place=1))
        assert set(lines(run, "epoch")[1]["pseudo"]) == {"background", "ignored"}

    @pytest.mark.parametrize("method", ["finetune", "mib"])
    def test_of_methods_that_give_none_are_not_spoken_of(self, tmp_path, method):
        assert not [line for line in lines(learn(tmp_path / "run", tiny_recipe(method, *SHORT))) if "pseudo" in line]

    def test_that_change_nothing_are_not_written(self, tmp_path):
        @dataclass(frozen=True)
        class Content(Relabelling):
            def relabel(self, batch, teacher, context):
                return batch.relabelled(batch.labels.clone())

        run = learn(tmp_path / "run", tiny_recipe("finetune", *SHORT), method=Content())
        assert not [line for line in lines(run) if "pseudo" in line]

    def test_are_counted_over_all_ranks_and_calls(self):
        pseudo = PseudoLabelCount(["background", "cat"], torch.device("cpu"))
        given = torch.zeros(1, 2, 2, dtype=torch.int64)
        pseudo.count(given, given)
        pseudo.count(given, torch.tensor([[[1, 1], [255, 0]]]))
        two = Ranks(sum=lambda tensor: tensor + torch.tensor([0, 0, 0, 8]), count=2)  # the other changed none of its 8
        assert pseudo.shares(two) == {"cat": 2 / 16, "ignored": 1 / 16}

    @pytest.mark.slow
    def test_of_two_ranks_are_those_of_one(self, tmp_path):
        one, two = (
            learn(
                tmp_path / str(count),
                tiny_recipe("finetune", *SHORT, f"training.devices={count}"),
                method=Relabelling(),
            )
            for count in (1, 2)
        )
        assert lines(one, "epoch")[1]["pseudo"] == lines(two, "epoch")[1]["pseudo"]

    def test_are_tensorboard_scalars_of_their_epochs(self, tmp_path):
        accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        run = Run(tmp_path)
        shares = [None, {"cat": 0.25, "ignored": 0.5}, {"ignored": 0.125}]
        for epoch, pseudo in enumerate(shares):
            line = {"kind": "epoch", "loss": 1.0, "lr": 0.1, "terms": {}, "step": int(epoch > 0), "epoch": epoch}
            run.append_metrics(line | ({"pseudo": pseudo} if pseudo else {}))
        loggers = Loggers(run, ["tensorboard"], {}, pytest.fail)
        loggers.update()
        loggers.close()
        events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        found = {
            name: [(event.step, event.value) for event in events.Scalars(f"pseudo/{name}")] for name in ("cat", "ignored")
        }
        assert found == {"cat": [(1, 25.0), (2, 0.0)], "ignored": [(1, 50.0), (2, 12.5)]}
