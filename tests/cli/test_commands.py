"""From a recipe to figures, predictions and a page, by the commands alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import contseg
from contseg.cli import main
from contseg.engine.run import Run
from contseg.evaluation.predict import predict_image
from contseg.interop.segmenter_file import load_segmenter, save_segmenter
from contseg.interruption import Interrupted
from tests.conftest import TINY
from tests.engine.runs import command, interrupted, lines, tiny_recipe

OPTIONS = [*TINY, "scenario.split=5-5", "training.batch=10", "training.epochs=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Run, str]:
    """A run made by `contseg train`, and what the command said."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    code, said, errors = command("train", "digits/mib_5-1", *OPTIONS, "--out", folder, "--no-cache")
    assert (code, errors) == (0, "")
    return Run(folder), said


def figures(text: str) -> dict[str, str]:
    """`old 1.2  new -` as a dictionary."""
    return dict(re.findall(r"\b(old|new|all|all_with_background|accuracy) (-|\d+\.\d)", text))


class TestTrain:
    def test_it_leaves_a_finished_run_and_a_page(self, trained):
        run, said = trained
        assert run.summary()["steps"] == 2
        assert (run.folder / "report.html").is_file()
        assert f"run: {run.folder}" in said
        assert f"report: {run.folder / 'report.html'}" in said

    def test_it_says_the_figures_of_every_step(self, trained):
        run, said = trained
        for line in lines(run, "step"):
            (told,) = (text for text in said.splitlines() if text.startswith(f"step {line['step']}/1 ") and ": old " in text)
            shown = {key: "-" if line[key] is None else f"{100 * line[key]:.1f}" for key in ("old", "new", "all")}
            assert figures(told) == shown

    def test_it_goes_on_where_it_was_stopped(self, trained, tmp_path):
        run, _ = trained
        recipe = tiny_recipe("mib", "training.epochs=1")
        interrupted(tmp_path / "run", recipe, "updated", 6)
        code, _, _ = command("train", "--resume", tmp_path / "run", "--no-cache")
        assert code == 0
        assert lines(Run(tmp_path / "run")) == lines(run)

    def test_it_may_go_on_with_other_workers(self, trained, tmp_path):
        interrupted(tmp_path / "run", tiny_recipe("mib", "training.epochs=1"), "updated", 6)
        code, _, _ = command("train", "--resume", tmp_path / "run", "training.workers=1", "--no-cache")
        assert code == 0
        assert lines(Run(tmp_path / "run")) == lines(trained[0])

    def test_it_deletes_a_run_only_when_told_to(self, tmp_path):
        interrupted(tmp_path / "run", tiny_recipe("mib"), "updated", 3)
        (tmp_path / "run" / "notes.txt").write_text("mine")
        offline = [*OPTIONS, "scenario.split=offline"]
        code, _, _ = command("train", "digits/joint", *offline, "--out", tmp_path / "run", "--overwrite", "--no-cache")
        assert code == 0
        assert Run(tmp_path / "run").summary()["steps"] == 1
        assert (tmp_path / "run" / "notes.txt").read_text() == "mine"

    def test_by_default_it_writes_to_runs_and_shares_the_first_step(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("CONTSEG_CACHE", str(tmp_path / "cache"))
        assert "from the cache" not in command("train", "digits/mib_5-1", *OPTIONS)[1]
        assert "from the cache" in command("train", "digits/finetune_5-1", *OPTIONS, "training.lr_later=1")[1]
        assert {path.name for path in (tmp_path / "runs").iterdir()} == {"digits-mib_5-1", "digits-finetune_5-1"}

    def test_a_path_with_an_equals_sign_is_a_recipe_too(self, trained, tmp_path):
        folder = tmp_path / "lr=0.1"
        folder.mkdir()
        recipe = folder / "recipe.yaml"
        recipe.write_bytes((trained[0].folder / "recipe.yaml").read_bytes())
        code, _, errors = command("train", recipe, "scenario.split=offline", "--out", tmp_path / "run", "--no-cache")
        assert (code, errors) == (0, "")


class TestEvaluate:
    @pytest.mark.parametrize("step", [None, 0, 1])
    def test_it_finds_the_figures_of_training_again(self, trained, step):
        run, _ = trained
        code, said, _ = command("evaluate", run.folder, *([] if step is None else ["--step", step]))
        assert code == 0
        line = lines(run, "step")[1 if step is None else step]
        expected = {key: line[key] for key in ("old", "new", "all", "all_with_background", "accuracy")}
        assert figures(said) == {key: "-" if value is None else f"{100 * value:.1f}" for key, value in expected.items()}
        for name, iou in zip(("background", "zero", "one"), line["iou"], strict=False):
            assert re.search(rf"{name} +│ +0 │ +{'-' if iou is None else f'{100 * iou:.1f}'} ", said), name


class TestPredict:
    @pytest.fixture
    def decided(self, trained, tmp_path):
        """A segmenter that sees its output 2, the class of id 9, everywhere."""
        segmenter, classes = load_segmenter(trained[0].segmenter_path(1))
        segmenter.classifier.steps[0].bias.data[2] = 1e4
        ids = (0, 3, 9, *range(20, 20 + len(classes) - 3))
        path = tmp_path / "decided.safetensors"
        save_segmenter(path, segmenter, type(classes)(classes.names, ids, classes.colours))
        return path, classes.colours[2]

    @pytest.fixture
    def images(self, tmp_path) -> Path:
        rng = np.random.default_rng(0)
        sizes = {"a.png": (40, 56), "street/b.jpg": (64, 33), "street/c.tif": (48, 48)}
        for name, (height, width) in sizes.items():
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        Image.new("L", (50, 41), 128).save(tmp_path / "images" / "grey.png")
        (tmp_path / "images" / "notes.txt").write_text("no image")
        return tmp_path / "images"

    def test_every_image_of_a_folder_gets_ids_colours_and_an_overlay_of_its_size(self, trained, images, tmp_path):
        code, said, _ = command("predict", trained[0].folder, images, "--out", tmp_path / "out")
        assert code == 0
        assert "4 images" in said
        segmenter, classes = load_segmenter(trained[0].segmenter_path(1))
        for name in ("a.png", "street/b.jpg", "street/c.tif", "grey.png"):
            with Image.open(images / name) as image:
                pixels = np.array(image.convert("RGB"))
            for kind in ("ids", "colours", "overlays"):
                with Image.open((tmp_path / "out" / kind / name).with_suffix(".png")) as written:
                    assert written.size == (pixels.shape[1], pixels.shape[0])
            ids = np.array(Image.open((tmp_path / "out" / "ids" / name).with_suffix(".png")))
            assert np.array_equal(ids, np.array(classes.ids)[predict_image(segmenter, pixels)])
        assert len(list((tmp_path / "out").rglob("*.png"))) == 12

    def test_ids_are_those_of_the_dataset_and_shown_in_its_colours(self, decided, images, tmp_path):
        segmenter, colour = decided
        code, _, _ = command("predict", segmenter, images / "a.png", "--out", tmp_path / "out")
        assert code == 0
        read = {kind: Image.open(tmp_path / "out" / kind / "a.png") for kind in ("ids", "colours", "overlays")}
        assert np.unique(np.array(read["ids"])).tolist() == [9]
        assert np.unique(np.array(read["colours"]).reshape(-1, 3), axis=0).tolist() == [list(colour)]
        assert np.unique(np.array(read["ids"].convert("RGB")).reshape(-1, 3), axis=0).tolist() == [list(colour)]
        mixed = (np.array(Image.open(images / "a.png")).astype(int) + colour) // 2
        assert np.array_equal(np.array(read["overlays"]), mixed)

    def test_two_images_of_one_name_do_not_overwrite_each_other(self, trained, tmp_path):
        (tmp_path / "in").mkdir()
        for suffix, size in ((".png", (40, 48)), (".jpg", (56, 48))):
            Image.new("RGB", size).save(tmp_path / "in" / f"a{suffix}")
        code, _, errors = command("predict", trained[0].folder, tmp_path / "in", "--out", tmp_path / "out")
        assert len(list((tmp_path / "out" / "ids").iterdir())) == 2 or (code == 2 and "a.png" in errors)


class TestPlanAndReport:
    def test_a_plan_is_printed_without_training(self, trained):
        code, said, _ = command("plan", "digits/mib_5-1", *OPTIONS, "--pixels")
        assert code == 0
        plan = json.loads((trained[0].folder / "plan.json").read_text())
        assert f"plan hash: {plan['hash']}" in said
        assert "zero, one, two" in said
        for step in plan["steps"]:
            assert str(step["train_images"]) in said
            assert str(step["test_images"]) in said

    def test_a_report_goes_beside_the_run_or_where_it_is_told(self, trained, tmp_path):
        run, _ = trained
        (run.folder / "report.html").unlink()
        assert command("report", run.folder)[0] == 0
        code, said, _ = command("report", run.folder, run.folder, "--out", tmp_path / "deep" / "page.html")
        assert code == 0
        assert str(tmp_path / "deep" / "page.html") in said
        assert (tmp_path / "deep" / "page.html").is_file()
        assert (run.folder / "report.html").is_file()


class TestHelp:
    @pytest.mark.parametrize("words", [[], ["train"], ["demo"], ["evaluate"], ["predict"], ["plan"], ["report"]], ids=str)
    def test_every_command_explains_itself(self, words):
        code, said, _ = command(*words, "--help")
        assert code == 0
        assert "Usage" in said
        assert len(said.splitlines()) > 8

    @pytest.mark.parametrize(
        "words",
        [[], ["train"], ["demo"], ["table"], ["models"], ["convert"], ["dry-run"], ["data", "check"], ["recipes", "show"],
         ["recipes"], ["data"], ["prepare"]],
        ids=" ".join,
    )  # fmt: skip
    def test_h_is_help_everywhere(self, words):
        assert command(*words, "-h") == command(*words, "--help")
        assert "Usage" in command(*words, "-h")[1]

    @pytest.mark.parametrize("option", ["--version", "-V"])
    def test_it_says_its_version(self, option):
        assert command(option) == (0, f"contseg {contseg.__version__}\n", "")

    @pytest.mark.parametrize(
        "words",
        [["train", "--help"], ["--help"], ["-h"], ["--version"], ["recipes"], ["recipes", "--system", "sdr"],
         ["recipes", "show", "-h"]],
        ids=" ".join,
    )  # fmt: skip
    def test_it_needs_no_torch(self, words):
        script = (
            f"import sys; sys.argv = ['contseg', *{words}]\n"
            "from contseg.cli.main import main\n"
            "try: main()\n"
            "except SystemExit as stop: assert not stop.code\n"
            "assert 'torch' not in sys.modules"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("stop", "code"), [(Interrupted(15), 143), (KeyboardInterrupt(), 130)], ids=["TERM", "Ctrl-C"])
def test_a_signal_before_a_command_begins_is_one_line(monkeypatch, capsys, stop, code):
    def interrupted_command() -> None:
        raise stop

    monkeypatch.setattr(main, "command", interrupted_command)
    monkeypatch.setattr(sys, "argv", ["contseg", "recipes"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert (ended.value.code, capsys.readouterr().err) == (code, "Interrupted.\n")
