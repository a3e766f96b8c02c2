"""Runs whose networks leave pixels undecided, from training to the page. They begin with a network that is sure already."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from contseg.data.datasets.digits import Digits
from contseg.engine.inputs import marks
from contseg.errors import ContsegError
from contseg.evaluation.confusion import IGNORED_WARNING
from contseg.evaluation.metrics import run_figures
from contseg.recipes.build import make_job
from contseg.recipes.read import read_recipe
from contseg.report.comparison import compare, with_marks
from contseg.report.page import write_report
from tests.engine.runs import Watching, command, interrupted, learn, lines, same, weights
from tests.engine.test_mask_runs import SMALL
from tests.panoptic_runs import saved

LEARNED = "network.background=learned"
RELEASED = ["method.variant=released", "network.head.decision=owner-simcis", LEARNED]


def recipe_of(name: str, start=None, *overrides: str):
    given = [] if start is None else [f"start_from={str(start)!r}"]
    network = [] if start is None else [key for key in SMALL if key.startswith("network.")]
    keys = [key for key in SMALL if key not in network]
    return read_recipe(f"digits/{name}_5-1", [*keys, *given, *overrides])


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """`start(decision)`: the file of a segmenter of the first five digits."""
    return lambda **head: saved(
        tmp_path_factory.mktemp("start") / "sure.safetensors", Digits.classes.subset(range(6)), **head
    )


@pytest.fixture(scope="module")
def run(start, tmp_path_factory):
    """Two steps of CoMFormer, of which the first is given."""
    return learn(tmp_path_factory.mktemp("whole") / "run", recipe_of("comformer", start(decision="owner")))


@pytest.fixture(scope="module")
def released(start, tmp_path_factory):
    """Two steps of SimCIS as released, whose undecided pixels do not count; and what training said."""
    recipe = recipe_of(
        "simcis", start(decision="owner-simcis", start="patches"), "method.variant=released", "evaluation.undecided=ignored"
    )
    watching = Watching()
    return learn(tmp_path_factory.mktemp("released") / "run", recipe, reporter=watching), watching.messages


class TestMisses:
    def test_the_matrices_have_a_column_more_and_the_metrics_count_it(self, run):
        first, last = run.confusions()
        assert (first.shape, last.shape) == ((6, 7), (11, 12))
        assert first[:, -1].any()
        assert np.diag(first).any(), "something is decided"
        assert run.summary()["all"] == pytest.approx(100 * run_figures([first, last], run.groups())["all"], abs=1e-4)
        assert lines(run, "step")[0]["pixels"] == first.sum()
        assert run.arrays("steps/00/confusion.npz")["confusion"].shape == (6, 7)
        assert marks(run) == []

    def test_a_run_goes_on_where_it_was_stopped_and_counts_again_what_was_lost(self, run, start, tmp_path):
        recipe = recipe_of("comformer", start(decision="owner"))
        interrupted(tmp_path / "run", recipe, "updated", 5)
        (tmp_path / "run" / "steps" / "00" / "confusion.npz").unlink()
        again = learn(tmp_path / "run", recipe)
        assert lines(again) == lines(run)
        assert same(weights(again), weights(run))
        assert all((one == other).all() for one, other in zip(again.confusions(), run.confusions(), strict=True))

    def test_commands_show_and_write_them(self, run, tmp_path):
        code, _, err = command("evaluate", run.folder, "--step", 0, "--json", tmp_path / "result.json")
        assert code == 0, err
        found = json.loads((tmp_path / "result.json").read_text())["iou"]
        assert [*found.values()] == lines(run, "step")[0]["iou"]
        photo = run.arrays("samples.npz")["image0"]
        Image.fromarray(photo).save(tmp_path / "photo.png")
        code, _, err = command("predict", run.folder / "steps" / "00", tmp_path / "photo.png", "--out", tmp_path / "out")
        assert code == 0, err
        ids = np.asarray(Image.open(tmp_path / "out" / "ids" / "photo.png"))
        assert (ids == run.arrays("steps/00/predictions.npz")["prediction0"]).all()
        assert 255 in ids
        assert (ids < 6).any()

    def test_the_report_names_them(self, run, tmp_path):
        page = write_report(run.folder, tmp_path / "report.html").read_text(encoding="utf-8")
        assert ">undecided</text>" in page
        assert IGNORED_WARNING not in page


class TestIgnored:
    def test_is_said_once_and_marked_wherever_the_numbers_are(self, released, tmp_path):
        run, messages = released
        assert messages.count(f"note: {IGNORED_WARNING}") == 1
        assert marks(run) == [IGNORED_WARNING]
        _, out, _ = command("table", run.folder)
        assert IGNORED_WARNING in out
        assert IGNORED_WARNING in write_report(run.folder, tmp_path / "report.html").read_text(encoding="utf-8")

    def test_only_decided_pixels_count(self, released):
        run, _ = released
        first = run.confusion(0)
        assert first.shape == (6, 7)
        assert first.any()
        assert not first[:, -1].any()
        code, out, err = command("evaluate", run.folder, "--step", 0, "evaluation.undecided=miss")
        assert code == 0, err
        assert IGNORED_WARNING not in out
        code, out, err = command("evaluate", run.folder, "--step", 0)
        assert out.count(IGNORED_WARNING) == 1

    @pytest.mark.parametrize("name", ["comformer", "simcis", "balconpas"])
    def test_is_refused_for_other_methods(self, name, tmp_path):
        with pytest.raises(ContsegError, match=rf"^evaluation\.undecided: only .* and the method is {name}.*; set "):
            make_job(recipe_of(name, None, "evaluation.undecided=ignored"), tmp_path)

    def test_is_refused_for_a_folder(self, released, tmp_path):
        run, _ = released
        code, _, err = command("evaluate", run.folder / "steps/00", "--data", tmp_path, "evaluation.undecided=ignored")
        assert code == 2
        assert "evaluation.undecided: undecided pixels of a labelled folder are always misses; remove it" in err

    def test_is_not_so_in_a_folder_which_is_noted(self, released, tmp_path):
        run, _ = released
        assert command("data", "extract", "digits", "--class", "four", "--images", 4, "--out", tmp_path / "fours")[0] == 0
        code, out, err = command("evaluate", run.folder / "steps/00", "--data", tmp_path / "fours")
        assert code == 0, err
        assert "note: undecided pixels are misses here" in out

    def test_is_marked_where_published_numbers_are_next_to_the_run(self, released):
        run, _ = released
        recipe = read_recipe("ade20k/simcis_100-10_overlapped_released", ["data.path=ADE"])
        (published,) = compare(recipe, {"old": 1.0, "new": 2.0, "all": 3.0})
        (marked,) = with_marks([published], [run])
        assert marked == replace(published, warnings=(IGNORED_WARNING, *published.warnings))

    def test_is_refused_when_a_run_of_another_method_is_evaluated(self, run):
        code, _, err = command("evaluate", run.folder, "evaluation.undecided=ignored")
        assert code == 2
        assert "evaluation.undecided: only the released code of SimCIS" in err


def test_simcis_as_released_asks_for_its_decision(tmp_path):
    with pytest.raises(
        ContsegError, match=r"^network\.head\.decision: .* set network\.head\.decision=owner-simcis \(it is ein"
    ):
        make_job(recipe_of("simcis", None, RELEASED[0], LEARNED), tmp_path)
    assert make_job(recipe_of("simcis", None, *RELEASED), tmp_path).network.leaves_undecided
