"""Mistakes in the input: exit code 2, one `error:` line on standard error, no traceback."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from contseg.data.files import read_mask, write_palette_png
from contseg.engine.run import Run
from contseg.recipes import build
from tests.cli.errors_page import entries, entry, require_current
from tests.cli.mistakes import MISTAKES
from tests.cli.spoilt import write
from tests.conftest import TINY
from tests.engine.runs import command, interrupted, learn, tiny_recipe

DIGITS = ["digits/finetune_5-1", *TINY, "training.epochs=1"]


DIVERGING = " ".join(
    ["training.lr=1000", *(f"training.lr_factors.{part}=1000" for part in ("backbone", "head", "classifier"))]
)
ADVICE = (
    r"; |[Ii]nput should|should have|should match|did you mean|Did you mean|[Kk]nown:|expected|must|needs? |use |set |give |"
    "write |see: |at least|choose|list |neither "
)
"""Words of what to do, or of what is valid."""
OUTSIDE = "ids outside the class table: 9 (6 pixels); the class list names 0 (background), 1 (red), 2 (green), 3 (blue)"


def refused(*arguments, telling: str) -> None:
    code, _, errors = command(*arguments)
    assert_refusal(code, errors, telling)


def assert_refusal(code: int, errors: str, telling: str) -> None:
    assert code == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert telling in line
    assert "Traceback" not in errors


class TestData:
    @pytest.fixture
    def squares(self, make_folder) -> Path:
        return make_folder(24)

    def arguments(self, root: Path, out: Path, *overrides: str) -> list[str]:
        folder = ["data.dataset=folder", "data.options={}", "scenario.split=2-1", "--data", str(root)]
        return ["train", *DIGITS, *overrides, *folder, "--out", str(out), "--no-cache"]

    def test_a_folder_that_is_good_is_trained(self, squares, tmp_path):
        code, _, errors = command(*self.arguments(squares, tmp_path / "run"))
        assert (code, errors) == (0, "")

    @pytest.mark.parametrize("part", ["", "images", "masks"])
    def test_a_folder_that_is_missing(self, squares, tmp_path, part):
        squares.joinpath(part).rename(tmp_path / "elsewhere")
        refused(*self.arguments(squares, tmp_path / "run"), telling=f"{squares / part}: folder not found")

    def test_no_folder_given(self, tmp_path):
        options = ["data.dataset=folder", "data.options={}"]
        refused("train", *DIGITS, *options, "--out", tmp_path / "run", telling="data.path: dataset 'folder' needs a folder")
        _, said, _ = command("plan", *DIGITS, *options)
        assert said == ""  # no empty line of a progress bar

    def test_an_image_without_a_mask(self, squares, tmp_path):
        mask = squares / "masks" / "004.png"
        mask.unlink()
        refused(*self.arguments(squares, tmp_path / "run"), telling=f"{mask}: mask not found")

    def test_a_mask_of_another_size(self, squares, tmp_path):
        mask = squares / "masks" / "004.png"
        write_palette_png(mask, np.zeros((30, 31), dtype=np.uint8), [(0, 0, 0)] * 256)
        refused(*self.arguments(squares, tmp_path / "run"), telling=f"{mask}: mask is 31x30 but its image is 32x32")

    def test_a_mask_of_colours(self, squares, tmp_path):
        mask = squares / "masks" / "004.png"
        Image.new("RGB", (32, 32), "red").save(mask)
        refused(*self.arguments(squares, tmp_path / "run"), telling=f"{mask}: mask has mode RGB")

    def test_ids_outside_the_class_table(self, squares, tmp_path):
        mask = squares / "masks" / "004.png"
        ids = read_mask(mask).copy()
        ids[:2, :3] = 9
        write_palette_png(mask, ids, [(0, 0, 0)] * 256)
        refused(*self.arguments(squares, tmp_path / "run"), telling=f"{mask}: {OUTSIDE}")

    @pytest.mark.parametrize("name", ["003", "023"])  # of the training list and of the test list
    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_truncated_image(self, squares, tmp_path, name, workers):
        image = squares / "images" / f"{name}.png"
        image.write_bytes(image.read_bytes()[:80])
        arguments = self.arguments(squares, tmp_path / "run", f"training.workers={workers}")
        refused(*arguments, telling=f"{image}: cannot be read as an image")

    def test_a_list_that_names_what_is_not_there(self, squares, tmp_path):
        (squares / "train.txt").write_text("000\n777\n")
        refused(*self.arguments(squares, tmp_path / "run"), telling="first '777'")

    def test_a_step_without_images(self, squares, tmp_path):
        (squares / "classes.txt").write_text("background\nred\ngreen\nblue\nviolet\n")
        refused(*self.arguments(squares, tmp_path / "run"), telling="step 2 (violet) has no training image")


@pytest.mark.parametrize(
    ("override", "telling"),
    [
        ("training.lrr=1", "training.lrr: unknown key (got 1); did you mean 'lr'?"),
        ("method.name=plopp", "method.name: unknown method 'plopp'; did you mean 'plop'?"),
        ("network.backbone=resnet19", "network.backbone: unknown backbone 'resnet19'; did you mean 'resnet18'?"),
        ("scenario.split=five-one", "scenario.split: cannot read 'five-one'"),
        ("scenario.split=15-1", "scenario.split: '15-1' does not fit 10 classes"),
        ("training.keep=best", "training.keep: 'best' needs held-out images"),
        ("backbone_weights=missing.pth", "missing.pth: weights file not found"),
        ("training.batch=3 training.devices=2", "training.batch: 3 images do not divide over 2 ranks"),
        (DIVERGING, "loss is not finite at step 0, epoch 0, batch"),
        (DIVERGING, "start over with --overwrite and a lower rate, such as training.lr=1e+02"),
        ("training.batch=1", "training.batch: 1 image is too few for head deeplabv3-mib, which has a norm over averages"),
        ("name=..", "name: '..' is not a valid folder name"),
        ("name=''", "name: '' is not a valid folder name"),
        ("name=", "name: Input should be a valid string (got None)"),
        ("scenario.split=4", "for 10 classes write BASE-INCREMENT such as 4-1 or 4-2"),
    ],
)
def test_options_that_are_wrong(tmp_path, override, telling):
    refused("train", *DIGITS, *override.split(), "--out", tmp_path / "run", "--no-cache", telling=telling)


class TestRuns:
    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory) -> Run:
        return learn(tmp_path_factory.mktemp("bad") / "run", tiny_recipe("finetune", "training.epochs=1"))

    def test_a_folder_that_holds_a_run_is_not_written_over(self, run):
        before = (run.folder / "metrics.jsonl").read_bytes()
        refused(
            "train", *DIGITS, "--out", run.folder, telling=f"{run.folder}: contains a run already; continue it with --resume"
        )
        assert (run.folder / "metrics.jsonl").read_bytes() == before

    def test_a_folder_that_holds_something_else_is_not_touched(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("years of work")
        for option in ([], ["--overwrite"]):
            refused("train", *DIGITS, "--out", tmp_path, *option, telling=f"{tmp_path}: is not empty and contains no run")
        assert (tmp_path / "thesis.tex").read_text() == "years of work"

    def test_a_file_where_the_run_should_be(self, tmp_path):
        (tmp_path / "run").write_text("")
        refused("train", *DIGITS, "--out", tmp_path / "run", telling=str(tmp_path / "run"))

    def test_resuming_with_a_changed_recipe(self, run):
        refused("train", "--resume", run.folder, "training.lr=0.5", telling="training.lr was 0.1, is 0.5; resume without")

    def test_what_changed_most_is_told_first_and_nothing_is_hidden(self, run):
        changes = ["training.lr=0.5", "training.clip=1", "data.flip=0.4", "training.power=1", "network.backbone=resnet34"]
        told = (
            "began: network.backbone.name was resnet18, is resnet34, data.flip was 0.0, is 0.4,"
            " training.clip was none, is 1.0,"
        )
        refused("train", "--resume", run.folder, *changes, telling=told)
        refused("train", "--resume", run.folder, *changes, telling="(and 1 more: training.power)")

    def test_resuming_with_another_recipe(self, run):
        refused("train", "digits/mib_5-1", "--resume", run.folder, telling="the recipe changed since the run began")

    @pytest.mark.parametrize("option", [["--out", "elsewhere"], ["--overwrite"]], ids=lambda words: words[0])
    def test_resuming_with_what_only_a_new_run_has(self, run, option):
        before = sorted(run.folder.rglob("*"))
        refused("train", "--resume", run.folder, *option, telling=f"{option[0]}: a resumed run stays in its own folder")
        assert sorted(run.folder.rglob("*")) == before

    def test_nothing_to_train(self):
        refused("train", telling="train: name a recipe (list them with: contseg recipes), or --resume RUN")

    @pytest.mark.parametrize("arguments", [["train", "--resume"], ["evaluate"], ["report"]], ids=lambda words: words[0])
    def test_a_folder_that_is_no_run(self, tmp_path, arguments):
        refused(*arguments, tmp_path, telling=f"{tmp_path}: contains no run (recipe.yaml is missing)")

    def test_a_segmenter_that_is_none(self, tmp_path, run):
        file = tmp_path / "notes.safetensors"
        file.write_text("not at all")
        refused("predict", file, tmp_path, telling=f"{file}: no segmenter of contseg; it is neither")
        refused("predict", tmp_path / "gone.safetensors", tmp_path, telling="gone.safetensors: not found; give a run")

    def test_images_that_are_none(self, tmp_path, run):
        refused("predict", run.folder, tmp_path, telling=f"{tmp_path}: contains no images")
        refused("predict", run.folder, tmp_path / "gone", telling=f"{tmp_path / 'gone'}: no such image or folder")

    def test_a_step_that_is_not_finished(self, run):
        refused("evaluate", run.folder, "--step", "2", telling="there is no step 2")

    @pytest.mark.parametrize("words", [["evaluate"], ["report"], ["predict"]], ids=lambda words: words[0])
    def test_a_run_without_a_finished_step(self, tmp_path, words):
        interrupted(tmp_path / "run", tiny_recipe("finetune"), "updated", 2)
        images = [tmp_path] if words == ["predict"] else []
        refused(*words, tmp_path / "run", *images, telling="finished")

    def test_a_demo_of_a_method_that_is_none(self, tmp_path):
        refused(
            "demo", "--methods", "finetune,plopp", "--out", tmp_path, telling="unknown method 'plopp'; did you mean 'plop'?"
        )

    def test_a_recipe_that_is_none(self):
        refused("plan", "digits/plop_51", telling="recipe 'digits/plop_51': not found; did you mean 'digits/plop_5-1'")

    def test_a_part_of_the_names_of_recipes(self):
        refused("train", "mib", telling="recipe 'mib': not found; did you mean 'folder/mib' or '")


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("spoilt")
    write(folder)
    return folder


class TestEveryMistake:
    """The table of `tests.cli.mistakes`, from which docs/errors.md is generated."""

    @pytest.mark.parametrize("mistake", MISTAKES, ids=str)
    def test_is_one_line_that_names_it_and_leaves_nothing(self, spoilt, monkeypatch, mistake):
        monkeypatch.chdir(spoilt)
        before = sorted(os.listdir(spoilt))
        code, printed, errors = command(*mistake.words)
        assert (code, len(errors.splitlines())) == (2, 1), errors or printed
        assert errors.startswith("error: ")
        assert mistake.names in errors
        assert re.search(ADVICE, errors), "what to do is missing"
        assert sorted(os.listdir(spoilt)) == before
        require_current(mistake, errors)

    def test_is_what_every_example_of_the_document_is(self):
        starts = {entry(mistake, "error:").partition("\nerror:")[0] for mistake in MISTAKES}
        assert {one.partition("\nerror:")[0] for one in entries().values()} <= starts

    def test_is_one_of_at_least_400(self):
        assert len(set(MISTAKES)) == len(MISTAKES) >= 400


NUMBERS_OF_SYSTEM = [
    "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "ENAMETOOLONG", "ELOOP",
    "EMFILE", "ENFILE", "ENOMEM", "EIO", "ESTALE", "EBUSY", "ENXIO",
]  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS_OF_SYSTEM)
def test_an_error_of_the_system_is_one_line_with_path_reason_and_advice(tmp_path, monkeypatch, name):
    number = getattr(errno, name)

    def fail(*_):
        raise OSError(number, os.strerror(number), "a/b")

    monkeypatch.setattr(build, "clear", fail)
    refused("train", *DIGITS, "--out", tmp_path / "run", "--no-cache", telling=f"error: a/b: {os.strerror(number)}; ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 TB")])
def test_too_little_memory_is_one_line(tmp_path, monkeypatch, error):
    monkeypatch.setattr(build, "clear", mock.Mock(side_effect=error))
    refused(
        "train", *DIGITS, "--out", tmp_path / "run", "--no-cache", telling="error: not enough memory; lower training.batch"
    )


def test_a_real_process_refuses_alike(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "contseg", "train", *DIGITS, "training.lrr=1", "--out", str(tmp_path / "run")],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert_refusal(process.returncode, process.stderr, "training.lrr: unknown key (got 1); did you mean 'lr'?")
    assert not (tmp_path / "run").exists()
