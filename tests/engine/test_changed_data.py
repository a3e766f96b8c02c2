"""A run goes on with the data that it began with; anything else is refused, and the message names what changed."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.recipes.read import read_recipe
from tests.engine.runs import command, interrupted, learn, same, tiny_recipe, weights

NAMES = ("background", "red", "green", "blue")


@pytest.fixture
def root(make_folder):
    return make_folder(count=16)


def recipe_of(root, *overrides: str):
    data = ["data.dataset=folder", f"data.path={root}", "data.options={}", "scenario.split=1-1", "training.batch=4"]
    return tiny_recipe("finetune", *data, "training.epochs=1", *overrides)


def halved(root):
    lines = (root / "train.txt").read_text().split()
    (root / "train.txt").write_text("\n".join(lines[: len(lines) // 2]) + "\n")


def reordered(root):
    lines = (root / "test.txt").read_text().split()
    (root / "test.txt").write_text("\n".join(lines[::-1]) + "\n")


def exchanged(root):
    (root / "classes.txt").write_text("\n".join(("background", "red", "blue", "green")) + "\n")


def edited(root):
    path = root / "masks" / "002.png"
    mask = np.array(Image.open(path))
    mask[:16, 3:] = 255
    Image.fromarray(mask).save(path)


def swapped(root):
    """Two masks of the same step change places: all sums stay."""
    one, other = (root / "masks" / f"{number}.png" for number in ("003", "006"))
    content = one.read_bytes(), other.read_bytes()
    assert content[0] != content[1]
    one.write_bytes(content[1])
    other.write_bytes(content[0])


def mirrored(root):
    """A mask is drawn anew with as many pixels of every class, in other places."""
    path = root / "masks" / "003.png"
    mask = np.array(Image.open(path))
    assert (mask != mask[:, ::-1]).any()
    Image.fromarray(mask[:, ::-1]).save(path)


CHANGES = {
    halved: r"step 0 had \d+ training images, and has \d+",
    reordered: "the test images of step 0 are others, or in another order",
    exchanged: "class 2 was 'green', and is 'blue'; class 3 was 'blue', and is 'green'",
    edited: r"the masks of the training images of step \d changed \('\w+' had \d+ pixels, and has \d+\)",
    swapped: r"the masks of the training images of step \d changed",
    mirrored: r"the masks of the training images of step \d changed",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_begun_run_is_refused_and_stays_as_it_is(root, tmp_path, change):
    interrupted(tmp_path / "run", recipe_of(root), "step_finished", 1)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    change(root)
    with pytest.raises(ContsegError, match=rf"run: changed since the run began: .*{CHANGES[change]}") as caught:
        learn(tmp_path / "run", recipe_of(root))
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_the_summary_of_a_finished_run_is_not_written_again(root, tmp_path):
    run = learn(tmp_path / "run", recipe_of(root))
    before = (run.folder / "summary.json").read_bytes()
    halved(root)
    code, _, errors = command("train", "--resume", run.folder)
    assert (code, errors.count("\n")) == (2, 1)
    assert "had 12 training" in errors or "training images, and has" in errors
    assert (run.folder / "summary.json").read_bytes() == before


def test_saliency_maps_are_data(root, tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    for path in (root / "images").glob("*.png"):
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(maps / path.name)
    data = ["data.dataset=folder", f"data.path={root}", "data.options={}", "scenario.split=1-1", "training.batch=4"]
    recipe = tiny_recipe("ssul", *data, "training.epochs=1", f"scenario.saliency={maps}")
    interrupted(tmp_path / "run", recipe, "step_finished", 1)
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(maps / "000.png")
    with pytest.raises(ContsegError, match=r"the saliency maps of the training images of step \d changed"):
        learn(tmp_path / "run", recipe)


class TestMovedData:
    def test_the_new_place_is_written_down_where_the_content_is_the_same(self, root, tmp_path):
        whole = learn(tmp_path / "whole", recipe_of(root))
        interrupted(tmp_path / "run", recipe_of(root), "step_finished", 1)
        moved = shutil.move(root, tmp_path / "moved")
        code, _, errors = command("train", "--resume", tmp_path / "run", "--data", moved)
        assert (code, errors) == (0, "")
        assert read_recipe(tmp_path / "run" / "recipe.yaml").data.path == str(moved)
        assert command("train", "--resume", tmp_path / "run")[0] == 0
        assert same(weights(Run(tmp_path / "run"), 2), weights(whole, 2))

    def test_the_old_place_stays_where_it_is_not(self, root, tmp_path):
        interrupted(tmp_path / "run", recipe_of(root), "step_finished", 1)
        other = shutil.copytree(root, tmp_path / "other")
        exchanged(other)
        code, _, errors = command("train", "--resume", tmp_path / "run", "--data", other)
        assert code == 2
        assert "class 2 was 'green', and is 'blue'" in errors
        assert read_recipe(tmp_path / "run" / "recipe.yaml").data.path == str(root)


class TestRunsOfEarlierVersions:
    """Their plan.json has no digests."""

    @pytest.fixture
    def run(self, root, tmp_path):
        interrupted(tmp_path / "run", recipe_of(root), "step_finished", 1)
        run = Run(tmp_path / "run")
        plan = run.plan()
        for step in plan["steps"]:
            del step["digests"]
        run.write_text("plan.json", json.dumps(plan | {"hash": "0123456789ab"}))
        return run

    def test_it_is_said_and_the_plan_stays(self, run, root):
        code, said, errors = command("train", "--resume", run.folder)
        assert (code, errors) == (0, "")
        assert "begun by an earlier version" in said.replace("\n", "")
        assert run.summary()["plan"] == "0123456789ab"

    @pytest.mark.parametrize("change", [halved, exchanged, edited], ids=lambda change: change.__name__)
    def test_what_can_be_compared_is(self, run, root, change):
        change(root)
        with pytest.raises(ContsegError, match=CHANGES[change]):
            learn(run.folder, recipe_of(root))


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[]", "not JSON"), ('{"a": 1}', "not a plan")])
def test_a_damaged_plan_is_one_line(root, tmp_path, text, message):
    interrupted(tmp_path / "run", recipe_of(root), "step_finished", 1)
    Run(tmp_path / "run").write_text("plan.json", text)
    with pytest.raises(ContsegError, match=rf"plan.json: {message}"):
        learn(tmp_path / "run", recipe_of(root))


class TestEvaluation:
    """Figures of a class are never printed under the name of another."""

    @pytest.fixture
    def run(self, root, tmp_path):
        return learn(tmp_path / "run", recipe_of(root))

    def test_exchanged_classes_are_refused(self, run, root):
        exchanged(root)
        code, said, errors = command("evaluate", run.folder)
        assert (code, said.strip(), errors.count("\n")) == (2, "", 1)
        assert f"{root}: class 2 of step 2 is 'blue', but 'green' in the segmenter" in errors
        assert "; list the classes as the run did: background, red, green, blue" in errors

    def test_exchanged_classes_of_another_folder_are_matched_by_name(self, run, root, tmp_path):
        confusions = {}
        for name, change in {"same": lambda folder: None, "other": exchanged}.items():
            change(shutil.copytree(root, tmp_path / name))
            code, _, errors = command("evaluate", run.folder, "--data", tmp_path / name, "--json", tmp_path / f"{name}.json")
            assert (code, errors) == (0, "")
            confusions[name] = json.loads((tmp_path / f"{name}.json").read_text())
        assert confusions["other"]["iou"]["red"] == confusions["same"]["iou"]["red"]
        assert list(confusions["other"]["iou"]) == ["background", "red", "green", "blue"]

    def test_other_images_of_the_same_classes_are_measured(self, run, root, tmp_path):
        other = shutil.copytree(root, tmp_path / "other")
        (other / "test.txt").write_text("\n".join(f"{number:03d}" for number in range(12, 15)) + "\n")
        code, said, errors = command("evaluate", run.folder, "--data", other)
        assert (code, errors) == (0, "")
        assert "3 images" in " ".join(said.split())
