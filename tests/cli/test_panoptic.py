"""Segments by the commands: what is written has the quality that the evaluator says, measured slowly by other code."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contseg.interop.segmenter_file import save_segmenter
from contseg.models.make import make_segmenter
from contseg.models.options import NetworkOptions
from contseg.recipes.read import to_yaml
from tests.engine.runs import command
from tests.panoptic_runs import saved, toy_recipe
from tests.trees.toy_panoptic import ToyPanoptic, write_subset

TABLE = ToyPanoptic.classes


@pytest.fixture(scope="module")
def predicted(toy_data, tmp_path_factory) -> tuple[Path, Path]:
    """A segmenter's file, and what `contseg predict --panoptic` wrote of the test images."""
    folder = tmp_path_factory.mktemp("predicted")
    model = saved(folder / "model.safetensors", TABLE, seed=6)
    code, said, errors = command("predict", model, toy_data / "images" / "test", "--panoptic", "--out", folder / "out")
    assert (code, errors) == (0, "")
    assert said.replace("\n", "").endswith(f"4 images: {folder / 'out'}")
    return model, folder / "out"


def of_file(png: Path, rows: list[dict[str, Any]]) -> list[tuple[int, bool, set[tuple[int, int]]]]:
    """Category, crowd, and pixels of each segment."""
    pixels: dict[int, set[tuple[int, int]]] = {}
    picture = Image.open(png).convert("RGB")
    for y in range(picture.height):
        for x in range(picture.width):
            red, green, blue = picture.getpixel((x, y))  # type: ignore[misc]  # RGB
            pixels.setdefault(red + 256 * green + 65536 * blue, set()).add((x, y))
    pixels.pop(0, None)
    assert pixels.keys() == {row["id"] for row in rows}
    return [(row["category_id"], bool(row["iscrowd"]), pixels[row["id"]]) for row in rows]


def slow_counts(pairs: list[tuple[list, list]]) -> dict[int, list[float]]:
    """Category to true positives, false positives, false negatives and sum of IoU, with sets of pixels."""
    sums: dict[int, list[float]] = {number: [0, 0, 0, 0.0] for number in TABLE.foreground}
    for found, true in pairs:
        annotated = set().union(*(pixels for _, _, pixels in true))
        matched: set[int] = set()
        for kind, _, own in found:
            crowds = set().union(*(pixels for other, crowd, pixels in true if crowd and other == kind), set())
            hit = None
            for place, (other, crowd, pixels) in enumerate(true):
                common = len(own & pixels)
                union = len((own & annotated) | pixels)
                if other == kind and not crowd and common / union > 0.5:
                    hit = place
                    sums[kind][0] += 1
                    sums[kind][3] += common / union
            if hit is not None:
                matched.add(hit)
            elif len(own - annotated) + len(own & crowds) <= len(own) / 2:
                sums[kind][1] += 1
        for place, (kind, crowd, _) in enumerate(true):
            if not crowd and place not in matched:
                sums[kind][2] += 1
    return sums


def listed(folder: Path, file: str) -> dict[str, list[dict[str, Any]]]:
    """Name of each image to its segments."""
    content = json.loads((folder / file).read_text())
    return {Path(row["file_name"]).stem: row["segments_info"] for row in content["annotations"]}


@pytest.fixture(scope="module")
def measured(toy_data, predicted, tmp_path_factory) -> tuple[dict[str, Any], str, dict[int, list[float]]]:
    """What `contseg evaluate` wrote and said, and the sums of the slow implementation, of a truth near the prediction."""
    model, out = predicted
    folder = tmp_path_factory.mktemp("measured")
    found = listed(out, "panoptic.json")
    truths = []
    for name, rows in sorted(found.items()):
        picture = np.asarray(Image.open(out / "panoptic" / f"{name}.png")).astype(int) @ [1, 256, 65536]
        kinds = [row["category_id"] for row in rows]
        ids = np.full(picture.shape, -1)
        for place, row in enumerate(rows):
            ids[picture == row["id"]] = place
        ids = np.roll(ids, 1, axis=1)  # outlines are a little off
        ids[:, 30:][ids[:, 30:] == -1] = len(kinds)  # a wall that nobody saw
        kinds[0] = kinds[0] % 5 + 1  # one class is another
        kinds.append(1)
        for place, kind in enumerate(kinds):  # stuff has one segment
            if kind not in TABLE.things:
                ids[ids == place] = kinds.index(kind)
        truths.append((ids, kinds))
    near = Path(shutil.copytree(toy_data, folder / "data"))
    write_subset(near, "test", truths, crowded=True)
    (folder / "recipe.yaml").write_text(to_yaml(toy_recipe(near, "scenario.split=offline")))
    code, said, errors = command("evaluate", model, "--recipe", folder / "recipe.yaml", "--json", folder / "result.json")
    assert (code, errors) == (0, "")
    true = listed(near, "test.json")
    pairs = [
        (of_file(out / "panoptic" / f"{name}.png", found[name]), of_file(near / "test" / f"{name}.png", true[name]))
        for name in sorted(found)
    ]
    return json.loads((folder / "result.json").read_text()), said, slow_counts(pairs)


def test_the_evaluator_counts_what_another_implementation_counts_in_the_files(measured):
    result, _, slow = measured
    sums = result["panoptic"]["sums"]
    for place, number in enumerate(TABLE.ids[1:], 1):
        counts = [sums[name][place] for name in ("true_positives", "false_positives", "false_negatives")]
        assert counts == slow[number][:3], TABLE.names[place]
        assert sums["iou"][place] == pytest.approx(slow[number][3], abs=1e-12)
    totals = np.array(list(slow.values())).sum(axis=0)
    assert (totals[:3] > 2).all(), "all three kinds of counts are tested"


def test_the_figures_follow_from_the_sums(measured):
    result, said, slow = measured
    quality = [hits / (found + extra / 2 + lost / 2) for found, extra, lost, hits in slow.values() if found + extra + lost]
    assert result["panoptic"]["pq"]["all"] == pytest.approx(np.mean(quality))
    shown = " ".join(said.split())
    assert f"PQ: old {100 * np.mean(quality):.1f} new - " in shown
    assert "SQ: old" in shown
    assert "RQ: old" in shown
    assert "PQ %" in shown


def test_every_segment_is_of_a_learned_class_and_background_is_none(toy_data, predicted, tmp_path):
    _, out = predicted
    assert {row["category_id"] for rows in listed(out, "panoptic.json").values() for row in rows} <= {*TABLE.foreground}
    first = TABLE.subset([0, 1, 2, 3])  # a network of step 0, which has not learned cars and cows
    model = saved(tmp_path / "first.safetensors", first)
    code, _, errors = command("predict", model, toy_data / "images" / "test", "--panoptic", "--out", tmp_path / "out")
    assert (code, errors) == (0, "")
    content = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert [row["id"] for row in content["categories"]] == [1, 2, 3]
    assert [row["isthing"] for row in content["categories"]] == [0, 0, 1]
    kinds = {row["category_id"] for rows in listed(tmp_path / "out", "panoptic.json").values() for row in rows}
    assert kinds
    assert kinds <= {1, 2, 3}


def test_undecided_pixels_are_void_and_the_picture_shows_the_image_there(toy_data, predicted):
    _, out = predicted
    ids = np.asarray(Image.open(out / "panoptic" / "test00.png")).astype(int) @ [1, 256, 65536]
    picture, image = (
        np.asarray(Image.open(place / "test00.png")) for place in (out / "overlays", toy_data / "images" / "test")
    )
    assert 0 < (ids == 0).mean() < 1
    lone = (picture[ids == 0] == image[ids == 0]).all(axis=1) | (picture[ids == 0] == 255).all(axis=1)
    assert lone.all(), "without a segment: the image, or a line beside one"
    assert not (picture[ids > 0] == image[ids > 0]).all()


def test_a_repeated_command_overwrites_its_results_and_no_others(toy_data, predicted, tmp_path):
    model, _ = predicted
    for _ in range(2):
        assert command("predict", model, toy_data / "images" / "test", "--panoptic", "--out", tmp_path)[0] == 0
    (tmp_path / "panoptic.json").write_text("{}")
    code, _, errors = command("predict", model, toy_data / "images" / "test", "--panoptic", "--out", tmp_path)
    assert code == 2
    assert "was changed after it was predicted" in errors


class TestErrors:
    def test_a_network_that_decides_pixels(self, toy_data, tmp_path):
        network = make_segmenter(NetworkOptions(backbone={"name": "resnet18", "width": 4}), [len(TABLE)])
        model = tmp_path / "pixels.safetensors"
        save_segmenter(model, network, TABLE)
        code, _, errors = command("predict", model, toy_data / "images" / "test", "--panoptic", "--out", tmp_path / "out")
        assert code == 2
        assert len(errors.splitlines()) == 1
        assert "--panoptic: the network decides a class for each pixel, and has no masks" in errors
        assert "network.head=eomt" in errors
        assert not (tmp_path / "out").exists()

    def test_a_network_without_things(self, toy_data, tmp_path):
        model = saved(tmp_path / "stuff.safetensors", replace(TABLE, things=()))
        code, _, errors = command("predict", model, toy_data / "images" / "test", "--panoptic", "--out", tmp_path / "out")
        assert code == 2
        assert "--panoptic: none of the 6 classes of the network is a thing" in errors

    @pytest.mark.parametrize(
        ("more", "named"), [(["--format", "coco"], "--format"), (["--flip"], "--slide"), (["--slide", "32"], "--slide")]
    )
    def test_what_segments_do_not_have(self, toy_data, predicted, tmp_path, more, named):
        out = tmp_path / "out"
        code, _, errors = command("predict", predicted[0], toy_data / "images" / "test", "--panoptic", *more, "--out", out)
        assert code == 2
        assert f"--panoptic: predicts whole images once, in its own format; remove {named}" in errors

    def test_an_image_that_cannot_be_read_is_listed_and_the_others_are_predicted(self, toy_data, predicted, tmp_path):
        images = tmp_path / "images"
        images.mkdir()
        (images / "good.png").write_bytes((toy_data / "images" / "test" / "test00.png").read_bytes())
        (images / "bad.png").write_bytes(b"no picture")
        code, said, errors = command("predict", predicted[0], images, "--panoptic", "--out", tmp_path / "out")
        assert code == 2
        assert "not predicted:" in said
        assert "bad.png" in said
        assert "1 of 2 images not predicted" in errors
        assert [*listed(tmp_path / "out", "panoptic.json")] == ["good"]
