"""`contseg extend`, `forget`, `merge`, and `evaluate --data` on the command line."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.engine.runs import command
from tests.extension.squares import write_model, write_squares


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model of red squares, and folders in which one colour is labelled."""
    root = tmp_path_factory.mktemp("world")
    write_model(root / "soft")
    for seed, colour in enumerate(("green", "blue")):
        write_squares(root / f"{colour}s", [colour], shown=["red", colour], seed=seed)
    write_squares(root / "reds", ["red"], seed=9)
    code, _, errors = command("extend", root / "soft", "--data", root / "greens", "--out", root / "base",
                          "--method", "gaussian-expanded")  # fmt: skip
    assert (code, errors) == (0, "")
    return root


def printed(*words) -> str:
    code, text, errors = command(*words)
    assert (code, errors) == (0, ""), errors
    return text


def refused(*words) -> str:
    code, _, errors = command(*words)
    assert code == 2
    assert errors.count("\n") == 1
    return errors


def test_extend_prints_what_was_learned_and_what_comes_next(world, tmp_path):
    out = tmp_path / "new"
    text = printed("extend", world / "base", "--data", world / "blues", "--out", out, "--keep", world / "reds",
                   "--method", "gaussian")  # fmt: skip
    assert re.search(r"│ blue +│ learned │ +- │ +[0-9.]+ │ +- │", text)
    assert re.search(r"│ red +│ (kept|lost) +│ +[0-9.]+ │", text)
    assert "estimate: the class of " in text
    assert "MB stored" in text
    assert f"model: {out}" in text
    for line in re.findall(r"^  contseg (.*)$", text, re.MULTILINE):
        assert line.split()[0] in ("predict", "evaluate", "forget", "export")
    assert (out / "report.html").is_file()


def test_the_next_commands_run(world, tmp_path):
    out = tmp_path / "new"
    text = printed("extend", world / "base", "--data", world / "blues", "--out", out, "--method", "gaussian")
    assert f"contseg forget {out} --class blue --out {out}-without-blue" in text
    left = printed("forget", out, "--class", "blue", "--out", f"{out}-without-blue")
    assert "classes left: background, red, green" in left
    printed("predict", out, world / "blues" / "images", "--out", tmp_path / "predictions")


def test_merge(world, tmp_path):
    write_squares(tmp_path / "yellows", ["yellow"])
    for name, data in (("one", world / "blues"), ("other", tmp_path / "yellows")):
        printed("extend", world / "base", "--data", data, "--out", tmp_path / name, "--method", "gaussian")
    text = printed("merge", tmp_path / "one", tmp_path / "other", "--out", tmp_path / "both")
    assert "classes: background, red, green, blue, yellow" in text


def test_several_candidates_are_listed_and_the_best_is_marked(world, tmp_path):
    text = printed("extend", world / "soft", "--data", world / "blues", "--out", tmp_path / "out", "--minutes", "0")
    assert text.count("│ > │") == 1
    assert "mib: no time left; raise --minutes" in text
    assert "mib: mib" not in text + (tmp_path / "out" / "report.html").read_text()


class TestEvaluate:
    def test_classes_are_matched_by_name_on_all_images(self, world, tmp_path):
        text = printed("evaluate", world / "base", "--data", world / "greens", "--json", tmp_path / "result.json")
        found = json.loads((tmp_path / "result.json").read_text())
        assert found["images"] == 8
        assert list(found["iou"]) == ["background", "red", "green"]
        assert found["iou"]["red"] is None
        assert found["iou"]["green"] > 0.2
        assert re.search(r"│ red +│ +- │", text)
        assert f"{100 * found['iou']['green']:.1f}" in text

    def test_ids_and_order_of_the_folder_do_not_matter(self, world, tmp_path):
        shifted = write_squares(tmp_path / "shifted", ["green"], shown=["red", "green"], seed=0)
        for path in (shifted / "masks").iterdir():
            Image.fromarray(7 * np.asarray(Image.open(path))).save(path)
        (shifted / "classes.txt").unlink()
        (shifted / "classes.yaml").write_text("{0: background, 7: green}")
        for folder in (world / "greens", shifted):
            printed("evaluate", world / "base", "--data", folder, "--json", tmp_path / f"{folder.name}.json")
        one, other = (json.loads((tmp_path / f"{name}.json").read_text())["iou"] for name in ("greens", "shifted"))
        assert one == other

    def test_a_list_of_test_images_is_used(self, world, tmp_path):
        folder = write_squares(tmp_path / "data", ["green"])
        (folder / "train.txt").write_text("0\n1\n2\n3\n4\n5\n")
        (folder / "test.txt").write_text("6\n7\n")
        printed("evaluate", world / "base", "--data", folder, "--json", tmp_path / "result.json")
        assert json.loads((tmp_path / "result.json").read_text())["images"] == 2

    def test_a_run_is_measured_on_another_folder_too(self, world, tmp_path):
        overrides = ["scenario.split=offline", "training.epochs=1", "training.batch=2", "data.crop=32",
                     "network.backbone={name: resnet18, width: 4}", "network.head.width=8"]  # fmt: skip
        run = tmp_path / "run"
        printed("train", "folder/finetune", "--data", world / "reds", "--out", run, "--no-cache", *overrides)
        assert "8 images" in " ".join(printed("evaluate", run, "--data", world / "reds").split())  # as any model
        assert "from step" in printed("evaluate", run, "--data", world / "reds", "--step", 0)  # the test set of its step
        other = write_squares(tmp_path / "other", ["red"], seed=3, count=5)
        text = printed("evaluate", run, "--data", other, "evaluation.flip=true")
        assert "5 images" in " ".join(text.split())

    @pytest.mark.parametrize(("rows", "noted"), [(0, False), (4, True)])
    def test_background_predicted_as_a_class_that_is_not_labelled_is_noted(self, world, monkeypatch, rows, noted):
        def predicted(segmenter, image, inference):
            ids = np.zeros((48, 48), np.uint8)
            ids[:rows], ids[-1, -1] = 1, 1  # red, which greens does not label
            return ids

        monkeypatch.setattr("contseg.extension.evaluation.predict_image", predicted)
        text = printed("evaluate", world / "base", "--data", world / "greens")
        assert ("% of background is predicted as red, which the folder does not label" in text) is noted

    def test_a_folder_without_a_known_class_is_refused(self, world):
        assert "has none of the model's classes" in refused("evaluate", world / "soft", "--data", world / "blues")

    def test_only_the_inference_can_be_changed(self, world):
        assert "only evaluation.KEY=VALUE" in refused("evaluate", world / "soft", "--data", world / "reds", "training.lr=1")


class TestHowAFolderIsRead:
    """Links out of it, and an id 0 that is a class, are set with the keys of a recipe."""

    @pytest.fixture
    def linked(self, world, tmp_path):
        folder = tmp_path / "linked"
        folder.mkdir()
        for part in ("images", "masks"):
            (folder / part).symlink_to(world / "blues" / part)
        (folder / "classes.txt").write_text("road\nblue\n")
        return folder

    def test_by_extend_and_by_evaluate(self, world, linked, tmp_path):
        options = ["data.follow_links=true", "data.options.background=none"]
        words = ["extend", world / "base", "--data", linked, "--out", tmp_path / "new", "--keep", linked,
                 "--method", "gaussian"]  # fmt: skip
        assert "set data.follow_links=true" in refused(*words, options[1])
        assert "data.options.background=none" in refused(*words, options[0])
        assert not (tmp_path / "new").exists()
        text = printed(*words, *options)
        assert re.search(r"│ road +│ learned", text)
        line = next(line.split() for line in text.splitlines() if line.startswith("  contseg evaluate"))
        assert "set data.follow_links=true" in refused("evaluate", tmp_path / "new", "--data", linked, options[1])
        assert re.search(r"│ road +│ +[0-9.]+ │", printed("evaluate", tmp_path / "new", "--data", linked, *options))
        assert sorted(re.sub("[\"']", "", word) for word in line[-2:]) == options

    def test_other_keys_are_refused(self, world, tmp_path):
        line = refused("extend", world / "base", "--data", world / "blues", "--out", tmp_path / "new", "data.crop=9")
        assert "override 'data.crop=9': of a labelled folder, only data.follow_links" in line


class TestRefused:
    def test_an_existing_folder(self, world):
        line = refused("extend", world / "soft", "--data", world / "blues", "--out", world / "base")
        assert line == f"error: {world / 'base'}: exists already; choose a new folder with --out\n"

    def test_an_empty_list_of_classes(self, world, tmp_path):
        line = refused("extend", world / "soft", "--data", world / "blues", "--out", tmp_path / "a", "--classes", ",")
        assert "--classes: expected names separated by commas" in line

    def test_a_class_that_the_folder_lacks(self, world, tmp_path):
        line = refused("extend", world / "soft", "--data", world / "blues", "--out", tmp_path / "a", "--classes", "bleu")
        assert "did you mean 'blue'" in line

    def test_a_model_that_is_not_there(self, world, tmp_path):
        assert "not found" in refused("extend", tmp_path / "x", "--data", world / "blues", "--out", tmp_path / "a")

    def test_data_that_is_not_there(self, world, tmp_path):
        assert "folder not found" in refused("extend", world / "soft", "--data", tmp_path / "x", "--out", tmp_path / "a")
