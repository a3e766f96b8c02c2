"""A signal ends a run after the update that is being made, and the run continues from there as if nothing had been."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from contseg import interruption
from contseg.engine.job import Reporter
from contseg.engine.progress import Progress
from contseg.engine.run import Run
from contseg.interruption import Interrupted, at_once, catching, deferred, requested
from contseg.methods.finetune import Finetune
from contseg.ranks import Ranks
from tests.conftest import TINY
from tests.engine.processes import alive, assert_saved, linux, wait_for
from tests.engine.runs import Watching, learn, lines, same, tiny_recipe, weights


@dataclass
class Signalling(Reporter):
    """Sends a signal at the n-th time that something happens."""

    event: str
    left: int
    number: int = signal.SIGTERM

    def _see(self, event):
        self.left -= event == self.event
        if self.left == 0 and event == self.event:
            signal.raise_signal(self.number)

    def updated(self, *_):
        self._see("updated")

    def evaluated(self):
        self._see("evaluated")

    def epoch_finished(self, *_):
        self._see("epoch_finished")


def signalled(folder: Path, recipe, event: str, count: int, **options) -> Interrupted:
    with pytest.raises(Interrupted) as caught:
        learn(folder, recipe, reporter=Signalling(event, count), **options)
    return caught.value


def assert_like(run: Run, whole: Run) -> None:
    assert lines(run) == lines(whole)
    for step in (0, 1):
        assert same(weights(run, step), weights(whole, step)), f"step {step}"
        assert same(run.load_state(step).method, whole.load_state(step).method)


RECIPE = tiny_recipe("plop")  # two steps of two epochs of four updates, with pseudo labels


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("whole") / "run", RECIPE)


@pytest.mark.parametrize(
    ("event", "count", "left"),
    [
        pytest.param("updated", 2, 6, id="after the update of an epoch"),
        pytest.param("updated", 4, 4, id="after the last update of an epoch", marks=pytest.mark.slow),
        pytest.param("updated", 14, 2, id="in a later step"),
        pytest.param("epoch_finished", 1, 3, id="between epochs", marks=pytest.mark.slow),
    ],
)
def test_a_run_continues_at_the_update_after_the_one_that_was_made(whole, tmp_path, event, count, left):
    stop = signalled(tmp_path / "run", RECIPE, event, count)
    assert (stop.number, stop.exit_code) == (signal.SIGTERM, 143)
    assert str(stop) == f"Interrupted. Resume with: contseg train --resume {tmp_path / 'run'}"
    watching = Watching()
    run = learn(tmp_path / "run", RECIPE, reporter=watching)
    assert watching.updates[0] == left
    assert_like(run, whole)


@pytest.mark.slow
def test_however_often(whole, tmp_path):
    for event, count in (("updated", 1), ("updated", 2), ("evaluated", 2), ("updated", 3), ("updated", 3)):
        signalled(tmp_path / "run", RECIPE, event, count)
    assert_like(learn(tmp_path / "run", RECIPE), whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        ("sdr", ()),
        ("rw", ()),
        ("mib", ("training.precision=16-mixed",)),
        ("ssul", ("training.batch=5", "training.accumulate=2")),
        ("mib", ("training.optimiser=adamw", "training.lr=0.001", "training.lr_later=0.001", "training.workers=2")),
    ],
)
def test_whatever_is_remembered(tmp_path, method, overrides):
    recipe = tiny_recipe(method, *overrides)
    for count in (2, 3, 5):
        signalled(tmp_path / "run", recipe, "updated", count)
    assert_like(learn(tmp_path / "run", recipe), learn(tmp_path / "whole", recipe))


def test_an_evaluation_for_the_best_epoch_ends_at_once_and_is_repeated(tmp_path, monkeypatch):
    from contseg.engine import measure

    recipe = tiny_recipe("finetune", "training.keep=best", "scenario.validation=0.2", "scenario.split=offline")
    evaluate, done = measure.evaluate, []

    def interrupted(*arguments, **options):
        signal.raise_signal(signal.SIGINT)
        done.append("went on")
        return evaluate(*arguments, **options)

    monkeypatch.setattr(measure, "evaluate", interrupted)
    with pytest.raises(Interrupted):
        learn(tmp_path / "run", recipe)
    assert not done
    monkeypatch.undo()
    watching = Watching()
    run = learn(tmp_path / "run", recipe, reporter=watching)
    whole = learn(tmp_path / "whole", recipe)
    assert watching.updates[0] == 5  # those of the second epoch, none of the first again
    assert lines(run) == lines(whole)
    assert same(weights(run, 0), weights(whole, 0))


@pytest.mark.slow
class TestTheScaleOfHalfPrecision:
    @dataclass(frozen=True)
    class Loud(Finetune):
        """Its gradients are too large for float16 at the scale with which training begins."""

        def losses(self, batch, student, teacher, context):
            return {name: 1000 * value for name, value in super().losses(batch, student, teacher, context).items()}

    RECIPE = tiny_recipe("finetune", "training.lr=0.01", "training.lr_later=0.01", "training.precision=16-mixed")

    def test_is_the_same_after_a_resume_between_two_steps(self, tmp_path):
        whole = learn(tmp_path / "whole", self.RECIPE, method=self.Loud())
        signalled(tmp_path / "cut", self.RECIPE, "updated", 9, method=self.Loud())  # the first update of step 1
        (tmp_path / "cut" / "steps" / "01" / "state.pt").unlink()  # so that step 1 begins again
        assert Run(tmp_path / "cut").load_state(0).scaler["scale"] < 2**16
        assert same(weights(learn(tmp_path / "cut", self.RECIPE, method=self.Loud())), weights(whole))

    def test_is_the_same_after_a_first_step_from_the_cache(self, tmp_path):
        whole = learn(tmp_path / "whole", self.RECIPE, method=self.Loud(), cache=tmp_path / "cache")
        recalled = learn(tmp_path / "recalled", self.RECIPE, method=self.Loud(), cache=tmp_path / "cache")
        assert same(weights(recalled), weights(whole))


class TestSignals:
    def test_without_a_block_that_defers_them_they_are_raised_at_once(self):
        with catching(), pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_they_wait_until_the_block_ends(self):
        seen = []
        with catching(), pytest.raises(Interrupted), deferred(seen.append):  # noqa: PT012
            signal.raise_signal(signal.SIGTERM)
            assert (requested(), seen) == (signal.SIGTERM, [signal.SIGTERM])

    def test_the_same_signal_sent_twice_is_one(self):
        with catching(), pytest.raises(Interrupted), deferred():  # noqa: PT012
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            assert requested() == signal.SIGINT

    def test_a_second_one_later_is_not_waited_for(self, monkeypatch):
        monkeypatch.setattr(interruption, "SAME", 0.0)
        went_on = False
        with catching(), pytest.raises(Interrupted), deferred():  # noqa: PT012
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            went_on = True
        assert not went_on

    def test_a_block_within_may_end_at_once(self):
        with catching(), pytest.raises(Interrupted), deferred(), at_once():  # noqa: PT012
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("went on")

    def test_what_is_ignored_stays_ignored_as_under_nohup(self):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with catching(), deferred():
                signal.raise_signal(signal.SIGHUP)
                assert requested() is None
        finally:
            signal.signal(signal.SIGHUP, before)


def test_what_ranks_have_summed_up_is_theirs_again_or_goes_to_the_first():
    saved = {"updates": 2, "sums": {"a": torch.tensor([1.0, 3.0])}, "pseudo": torch.tensor([5, 6]), "seconds": 1.0}
    cpu = torch.device("cpu")
    again = [Progress.of(0, saved, Ranks(rank=rank, count=2), cpu) for rank in (0, 1)]
    assert [float(one.sums["a"]) for one in again] == [1.0, 3.0]
    assert [one.pseudo.tolist() for one in again] == [[5, 6], [0, 0]]
    for count in (1, 4):  # the mean over ranks stays 2
        others = [Progress.of(0, saved, Ranks(rank=rank, count=count), cpu) for rank in range(count)]
        assert sum(float(one.sums["a"]) for one in others) / count == 2.0


# --- real processes -----------------------------------------------------------------------------------------------------

PROCESS = [
    *TINY, "data.options={train: 200, test: 40, size: 96}", "scenario.split=5-5", "data.crop=96", "training.batch=10",
    "training.epochs=3", "network.width=16",
]  # fmt: skip

LONG = "training.epochs=40"
"""So that a signal always meets a step that is being learned, however late it is sent."""


def begun(folder: Path, *arguments: str, mark: str) -> subprocess.Popen:
    """`contseg train` in a process group of its own, when an epoch is done; `mark` is found again in its children."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CONTSEG_TEST_MARK": mark}
    command = [sys.executable, "-m", "contseg", "train", "digits/mib_5-1", *PROCESS, *arguments]
    process = subprocess.Popen(
        [*command, "--out", str(folder), "--no-cache"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: Run(folder).metrics(), process)
    return process


@linux
class TestAProcess:
    @pytest.mark.parametrize(
        ("number", "code"),
        [
            (signal.SIGINT, 130),
            pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
            pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
            pytest.param(signal.SIGUSR1, 138, marks=pytest.mark.slow),
        ],
    )
    def test_ends_with_one_line_and_the_code_of_the_signal(self, tmp_path, number, code):
        process = begun(tmp_path / "run", LONG, mark=str(tmp_path))
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code
        assert errors == f"Interrupted. Resume with: contseg train --resume {tmp_path / 'run'}\n"
        assert_saved(Run(tmp_path / "run"))
        assert not alive(str(tmp_path))

    @pytest.mark.slow
    @pytest.mark.parametrize("options", [("training.workers=2",), ("training.devices=2", "training.workers=1")], ids=str)
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("group", [False, True], ids=["alone", "with all its children"])
    def test_saves_and_leaves_no_reader_and_no_rank(self, tmp_path, options, number, group):
        process = begun(tmp_path / "run", LONG, *options, mark=str(tmp_path))
        os.killpg(process.pid, number) if group else process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 128 + number
        assert errors == f"Interrupted. Resume with: contseg train --resume {tmp_path / 'run'}\n"
        assert_saved(Run(tmp_path / "run"))
        wait_for(lambda: not alive(str(tmp_path)), seconds=60)

    @pytest.mark.slow
    def test_that_is_killed_leaves_no_reader_and_no_rank(self, tmp_path):
        process = begun(tmp_path / "run", LONG, "training.devices=2", "training.workers=1", mark=str(tmp_path))
        process.kill()
        process.communicate()
        wait_for(lambda: not alive(str(tmp_path)), seconds=60)
        assert_saved(Run(tmp_path / "run"))

    @pytest.mark.slow
    def test_of_two_ranks_continues_as_if_nothing_had_been(self, tmp_path):
        two = ("training.devices=2",)
        process = begun(tmp_path / "run", *two, mark=str(tmp_path))
        process.terminate()
        process.communicate(timeout=120)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        for arguments in (["--resume", tmp_path / "run"], ["digits/mib_5-1", *PROCESS, *two, "--out", tmp_path / "whole"]):
            command = [sys.executable, "-m", "contseg", "train", *map(str, arguments), "--no-cache"]
            assert subprocess.run(command, env=environment, capture_output=True, timeout=300).returncode == 0
        assert_like(Run(tmp_path / "run"), Run(tmp_path / "whole"))
