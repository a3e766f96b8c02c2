"""Everything is checked before a run is deleted, and nothing is decided by the run that will be."""

import shutil
from unittest import mock

import pytest

from contseg.engine.run import Run
from contseg.recipes.build import make_job, start_run
from tests.conftest import TINY
from tests.engine.runs import command, learn, same, tiny_recipe, weights

OPTIONS = [*TINY, "scenario.split=5-5", "training.batch=10", "training.epochs=1"]


def train(folder, *more, recipe: str = "digits/finetune_5-1"):
    return command("train", recipe, *OPTIONS, "--out", folder, "--no-cache", *more)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A run to start from: other weights than the default seed gives."""
    return learn(tmp_path_factory.mktemp("start") / "run", tiny_recipe("finetune", "training.epochs=1", "training.seed=7"))


@pytest.fixture
def old(tmp_path):
    """A finished run, of which a damaged state is nobody's business when it is overwritten."""
    run = learn(tmp_path / "old", tiny_recipe("finetune", "training.epochs=1"))
    (run.folder / "mine.txt").write_text("of the user")
    return run


def contents(run: Run) -> dict:
    return {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


def test_the_same_command_typed_twice_starts_from_the_same_segmenter_twice(start, tmp_path):
    given = f"start_from={start.segmenter_path(0)}"
    for _ in range(2):
        code, said, errors = train(tmp_path / "run", given, "--overwrite")
        assert (code, errors) == (0, "")
        assert f"from {start.segmenter_path(0)}" in said.replace("\n", "")
        assert same(weights(Run(tmp_path / "run"), 0), weights(start, 0))


def test_in_python_too_in_whatever_order(start, old):
    recipe = tiny_recipe("finetune", "training.epochs=1", f"start_from={start.segmenter_path(0)}")
    job = make_job(recipe, old.folder)
    start_run(recipe, old.folder, overwrite=True)
    assert job.start_from == start.segmenter_path(0)


def test_a_damaged_run_can_be_overwritten(start, old, tmp_path):
    given = Run(shutil.copytree(start.folder, tmp_path / "given"))
    for run in (given, old):  # finetune needs no state of the run that it starts from
        run.state_path(0).write_bytes(b"half")
    (old.folder / "plan.json").write_text("{")
    code, _, errors = train(old.folder, f"start_from={given.segmenter_path(0)}", "--overwrite")
    assert (code, errors) == (0, "")
    assert (old.folder / "mine.txt").is_file()


WRONG = {
    "no weights": (["backbone_weights=missing.pth"], "missing.pth"),
    "no segmenter": (["start_from=missing.safetensors"], "start_from: missing.safetensors"),
    "no devices": (["training.devices=99"], "training.batch: 10 images do not divide over 99 ranks"),
    "no GPU": (["training.accelerator=cuda"], "training.accelerator"),
    "options of another backbone": (["network.backbone=swin_tiny"], "swin_tiny has no key"),
    "no data": (["data.dataset=voc", "data.path=missing", "data.options={}"], "missing"),
    "no such split": (["scenario.split=7-9"], "scenario.split"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_leaves_the_old_run_and_no_new_folder(old, tmp_path, mistake):
    overrides, word = WRONG[mistake]
    before = contents(old)
    with mock.patch("torch.cuda.is_available", return_value=False):
        for folder, more in ((old.folder, ["--overwrite"]), (tmp_path / "new", [])):
            code, _, errors = train(folder, *overrides, *more)
            assert (code, errors.count("\n")) == (2, 1)
            assert word in errors
    assert contents(old) == before
    assert not (tmp_path / "new").exists()


def test_damaged_weights_leave_the_old_run(old, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"half")
    before = contents(old)
    code, _, errors = train(old.folder, f"backbone_weights={tmp_path / 'weights.pth'}", "--overwrite")
    assert code == 2
    assert "weights.pth" in errors
    assert contents(old) == before


@pytest.mark.parametrize("key", ["start_from", "backbone_weights", "data.path"])
def test_a_run_that_is_needed_is_not_deleted(old, key):
    part = old.segmenter_path(0) if key != "data.path" else old.folder / "steps"
    before = contents(old)
    with mock.patch("contseg.cli.train.prepared_job"), mock.patch("contseg.cli.train.make_plan"):
        code, _, errors = train(old.folder, f"{key}={part}", "--overwrite")
    assert code == 2
    assert f"{key}: {part} is part of the run in {old.folder}, which --overwrite deletes;" in errors
    assert contents(old) == before


@pytest.mark.parametrize("name", ["..", "''", ".", "' '"])
def test_a_name_that_names_no_folder_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    code, _, errors = command("train", "digits/finetune_5-1", *OPTIONS, f"name={name}")
    assert code == 2
    assert "is not a valid folder name" in errors
    assert not list(tmp_path.iterdir())


def test_a_fresh_demo_deletes_nothing_before_everything_is_checked(tmp_path):
    kept = tmp_path / "demo" / "cache" / "kept"
    kept.mkdir(parents=True)
    for wrong in ("training.epochs=0", "training.devices=7", "network.width=3.5"):
        code, _, errors = command("demo", "digits", "--fresh", "--out", tmp_path / "demo", *TINY, wrong)
        assert (code, errors.count("\n")) == (2, 1)
        assert kept.is_dir()
        assert [path.name for path in (tmp_path / "demo").iterdir()] == ["cache"]


def test_a_fresh_demo_keeps_files_of_the_user(tmp_path):
    mine = [tmp_path / "demo" / name for name in ("cache/mine.txt", "joint/mine.txt", "photo.png")]
    line = ("demo", "digits", "--fresh", "--out", tmp_path / "demo", "--methods", "joint", *TINY, "training.epochs=1")
    assert command(*line)[0] == 0
    result = (tmp_path / "demo" / "cache" / ("0" * 64)) / "rest.pt"
    for path in (*mine, result):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of the user")
    assert command(*line)[0] == 0
    assert [path.read_text() for path in mine] == ["of the user"] * 3
    assert not result.exists()


def test_a_demo_does_not_replace_a_summary_or_report_of_the_user(tmp_path):
    for name in ("summary.json", "report.html"):
        mine = tmp_path / name / name
        mine.parent.mkdir()
        mine.write_text("of the user")
        code, _, errors = command("demo", "digits", "--out", mine.parent, *TINY)
        assert (code, errors.count("\n")) == (2, 1)
        assert f"{mine}: exists, and contseg did not write it" in errors
        assert [path.read_text() for path in mine.parent.iterdir()] == ["of the user"]


class TestBeforeTheFirstState:
    """A run that fails at its first batch does not keep the corrected command from using its folder."""

    @pytest.fixture
    def squares(self, make_folder):
        root = make_folder(8)
        for path in (root / "images").iterdir():
            path.write_bytes(path.read_bytes()[:60])  # the size can be read, the pixels cannot
        return root

    def train(self, squares, out, *more):
        options = ["scenario.split=2-1", "data.crop=32", "network.backbone=resnet18", "network.backbone.width=4"]
        return command("train", "folder/finetune", "--data", squares, "--out", out, "--no-cache", *options, *more)

    def test_no_folder_is_left(self, squares, tmp_path):
        code, _, errors = self.train(squares, tmp_path / "out" / "run")
        assert (code, errors.count("\n")) == (2, 1)
        assert not (tmp_path / "out" / "run").exists()

    def test_of_a_run_that_was_overwritten_only_files_of_the_user_are_left(self, squares, old):
        code, _, _ = self.train(squares, old.folder, "--overwrite")
        assert code == 2
        assert [path.name for path in old.folder.iterdir()] == ["mine.txt"]


OUTPUTS = {
    "a report": (["report", "RUN", "--out", "FILE"], "page.html"),
    "a table": (["table", "RUN", "--out", "FILE"], "table.md"),
    "a table for spreadsheets": (["table", "RUN", "--out", "FILE"], "table.csv"),
    "a result": (["evaluate", "RUN", "--json", "FILE"], "result.json"),
    "a drawing": (["plan", "digits/finetune_5-1", *OPTIONS, "--draw", "FILE"], "plan.png"),
    "a vector drawing": (["plan", "digits/finetune_5-1", *OPTIONS, "--draw", "FILE"], "plan.pdf"),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_an_output_replaces_an_earlier_one_and_no_other_file(start, tmp_path, kind):
    words, name = OUTPUTS[kind]
    mine, new = tmp_path / name, tmp_path / "new" / name
    mine.write_text("of the user")

    def written(path):
        return command(*(start.folder if word == "RUN" else path if word == "FILE" else word for word in words))

    code, _, errors = written(mine)
    assert (code, errors.count("\n"), mine.read_text()) == (2, 1, "of the user")
    assert f"{mine}: exists, and contseg did not write it; choose another file with --" in errors
    for _ in range(2):
        assert written(new)[0] == 0
    code, _, errors = written(tmp_path)
    assert (code, errors.count("\n")) == (2, 1)
