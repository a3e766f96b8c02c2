"""Extending a model, taking classes back, and merging extensions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import contseg
from contseg.errors import ContsegError
from contseg.extension import extend as module
from contseg.extension.extend import Extension, extend
from contseg.extension.folder import stored_sums, tensors_sha256
from contseg.extension.forget import forget
from contseg.extension.merge import merge
from contseg.interop.pretrained import load_pretrained
from contseg.recipes.models import open_model
from tests.extension.squares import write_model, write_squares


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """`soft` has red squares, `base` also green ones by a Gaussian head; each folder labels one colour."""
    root = tmp_path_factory.mktemp("world")
    write_model(root / "soft")
    for seed, colour in enumerate(("green", "blue", "yellow")):
        write_squares(root / f"{colour}s", [colour], shown=["red", colour], seed=seed)
    write_squares(root / "reds", ["red"], seed=9)
    extend(root / "soft", root / "greens", root / "base", method="gaussian-expanded")
    extend(root / "base", root / "blues", root / "blue", method="gaussian")
    extend(root / "base", root / "yellows", root / "yellow", method="gaussian")
    extend(root / "blue", root / "yellows", root / "both", method="gaussian")
    return root


def logits(folder: Path) -> torch.Tensor:
    segmenter = load_pretrained(folder)[0]
    images = torch.randint(255, (1, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return segmenter(segmenter.normalise(images)).logits


def record(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def test_an_extended_model_has_the_new_class_and_is_extended_again(world):
    assert load_pretrained(world / "base")[1].names == ("background", "red", "green")
    assert load_pretrained(world / "both")[1].names == ("background", "red", "green", "blue", "yellow")
    assert sorted(path.name for path in (world / "base").iterdir()) == [
        "report.html", "result.json", "segmenter.json", "segmenter.safetensors", "statistics.safetensors",
    ]  # fmt: skip


def test_the_model_is_not_changed(world):
    before = {path: path.read_bytes() for path in (world / "soft").iterdir()}
    extend(world / "soft", world / "blues", world / "again", method="gaussian-columns")
    assert {path: path.read_bytes() for path in (world / "soft").iterdir()} == before


def test_provenance_names_model_data_method_and_classes(world):
    source = open_model(world / "both").source
    blue = open_model(world / "blue")
    assert source["base"]["sha256"] == tensors_sha256(blue.segmenter)
    assert source["base"]["source"]["base"]["sha256"] == tensors_sha256(load_pretrained(world / "base")[0])
    assert source["classes"] == {"new": ["yellow"], "known": []}
    assert (source["method"], source["seed"], source["unlabelled"]) == ("gaussian", 0, "unknown")
    yellow = open_model(world / "yellow").source
    assert source["data"]["sha256"] == yellow["data"]["sha256"] != blue.source["data"]["sha256"]


def test_the_record_has_every_class_and_what_was_not_measured_is_none(world):
    found = record(world / "both")
    assert [row["name"] for row in found["classes"]] == ["yellow", "background", "red", "green", "blue"]
    new, *old = found["classes"]
    assert new["result"] == "learned"
    assert new["after"] > 0.2
    assert new["before"] is None
    assert all(row["before"] is None and row["after"] is None for row in old)
    assert found["seconds"] > 0
    assert 0 < found["stored_mb"] < 50


def test_statistics_that_would_be_large_are_expanded_at_random(world, tmp_path, monkeypatch):
    monkeypatch.setattr("contseg.extension.gaussian_heads.LARGE", 1000)
    extend(world / "soft", world / "blues", tmp_path / "out", method="pyramid")
    assert stored_sums(open_model(tmp_path / "out")).features.expansion == 512


def test_forgetting_restores_the_scores_from_before(world, tmp_path):
    done = forget(world / "blue", "blue", tmp_path / "out")
    assert done.table == load_pretrained(world / "base")[1]
    assert torch.equal(logits(tmp_path / "out"), logits(world / "base"))
    source = open_model(tmp_path / "out").source
    assert source["forgotten"]["classes"] == ["blue"]


def test_forgetting_the_first_of_two_extensions_leaves_the_second(world, tmp_path):
    forget(world / "both", ["blue"], tmp_path / "out")
    assert torch.allclose(logits(tmp_path / "out"), logits(world / "yellow"), atol=1e-4)


def test_forgetting_columns_leaves_the_old_head_bit_equal(world, tmp_path):
    extend(world / "soft", world / "blues", tmp_path / "columns", method="gaussian-columns")
    done = forget(tmp_path / "columns", "blue", tmp_path / "out")
    assert torch.equal(logits(tmp_path / "out"), logits(world / "soft"))
    assert done.notes == ()


def test_forgetting_a_class_without_statistics_removes_its_output_only(world, tmp_path):
    write_model(tmp_path / "three", ("background", "red", "cyan"))
    done = forget(tmp_path / "three", "red", tmp_path / "out")
    assert done.table.names == ("background", "cyan")
    assert torch.equal(logits(tmp_path / "out"), logits(tmp_path / "three")[:, [0, 2]])
    assert "other weights that changed with them stay" in done.notes[0]


def test_merging_two_extensions_is_extending_by_both(world, tmp_path):
    done = merge(world / "blue", world / "yellow", tmp_path / "out")
    assert done.table.names == load_pretrained(world / "both")[1].names
    merged, both = (stored_sums(open_model(path)) for path in (tmp_path / "out", world / "both"))
    assert merged.classes == both.classes
    for name in ("counts", "totals", "scatters", "background_counts", "background_totals"):
        assert torch.allclose(getattr(merged, name), getattr(both, name), rtol=1e-12, atol=1e-9)
    assert torch.allclose(logits(tmp_path / "out"), logits(world / "both"), atol=1e-4)


def test_merging_extensions_of_a_model_without_statistics(world, tmp_path):
    for colour in ("blue", "yellow"):
        extend(world / "soft", world / f"{colour}s", tmp_path / colour, method="gaussian-expanded")
    done = merge(tmp_path / "blue", tmp_path / "yellow", tmp_path / "out")
    assert done.table.names == ("background", "red", "blue", "yellow")
    blue, yellow, both = (stored_sums(open_model(tmp_path / name)) for name in ("blue", "yellow", "out"))
    assert both.counts.tolist() == [blue.counts[0] + yellow.counts[0], blue.counts[1], yellow.counts[1]]


@pytest.mark.slow
def test_auto_shows_what_it_tried_and_keeps_the_best(world, tmp_path, monkeypatch):
    monkeypatch.setattr("contseg.extension.learn.LEAST", 20)
    monkeypatch.setattr("contseg.extension.learn.EPOCHS", 1)
    done = extend(world / "soft", world / "blues", tmp_path / "out", keep=world / "reds", minutes=1)
    tried = {one["name"]: one for one in done.record["candidates"]}
    assert list(tried) == ["gaussian", "gaussian-expanded", "pyramid", "gaussian-columns", "mib", "plop"]
    able = [one for one in tried.values() if one["score"] is not None]
    assert max(able, key=lambda one: one["score"])["score"] == tried[done.record["method"]]["score"]
    assert [one["name"] for one in tried.values() if one["chosen"]] == [done.record["method"]]
    assert tried["mib"]["note"] == "20 updates, complete"


def test_a_method_without_time_is_listed_with_its_reason(world, tmp_path):
    done = extend(world / "soft", world / "blues", tmp_path / "out", minutes=0)
    notes = {one["name"]: one["note"] for one in done.record["candidates"]}
    assert notes["mib"] == "no time left; raise --minutes"
    with pytest.raises(ContsegError, match="lwf: no time left"):
        extend(world / "soft", world / "blues", tmp_path / "none", method="lwf", minutes=0)


class TestOldImages:
    def test_labelled_ones_measure_old_classes_before_and_after(self, world, tmp_path):
        done = extend(world / "base", world / "blues", tmp_path / "out", method="gaussian", keep=world / "reds")
        rows = {row.name: row for row in done.classes}
        assert rows["red"].before is not None
        assert rows["red"].after is not None
        assert rows["green"].before is None
        more = stored_sums(open_model(tmp_path / "out"))
        assert more.counts[more.classes.index("red")] > stored_sums(open_model(world / "base")).counts[0]

    def test_unlabelled_ones_measure_agreement(self, world, tmp_path):
        done = extend(world / "soft", world / "blues", tmp_path / "out", method="gaussian", keep=world / "reds" / "images")
        assert done.record["images"]["keep"] == 8
        assert done.classes[-1].before is None

    def test_a_folder_without_images_is_refused(self, world, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(ContsegError, match="empty: no images; --keep needs a folder of old images"):
            extend(world / "soft", world / "blues", tmp_path / "out", keep=tmp_path / "empty")


def test_a_class_that_the_model_has_is_more_data_for_it(world, tmp_path):
    write_squares(tmp_path / "data", ["red", "blue"])
    done = extend(world / "base", tmp_path / "data", tmp_path / "out", method="gaussian")
    assert done.record["provenance"]["classes"] == {"new": ["blue"], "known": ["red"]}
    assert any("red: already in the model" in note for note in done.record["notes"])
    red = next(row for row in done.classes if row.name == "red")
    assert red.before is not None


def test_unlabelled_pixels_count_as_background_where_that_is_stated(world, tmp_path):
    done = extend(world / "base", world / "blues", tmp_path / "out", method="gaussian", unlabelled="background")
    background = next(row for row in done.classes if row.name == "background")
    assert background.before is not None


@pytest.mark.parametrize("keep_folder", [False, True])
def test_an_interrupted_extension_leaves_nothing(world, tmp_path, monkeypatch, keep_folder):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_page" if keep_folder else "compare", stopped)
    with pytest.raises(KeyboardInterrupt):
        extend(world / "base", world / "blues", tmp_path / "out", method="gaussian")
    assert list(tmp_path.iterdir()) == []


def test_few_images_are_noted(world, tmp_path):
    write_squares(tmp_path / "data", ["blue"], count=2)
    done = extend(world / "base", tmp_path / "data", tmp_path / "out", method="gaussian")
    assert any("a rough measurement" in note for note in done.record["notes"])


class TestRefused:
    def refused(self, world, tmp_path, match, *, model="base", data=None, **options):
        with pytest.raises(ContsegError, match=match) as caught:
            extend(world / model, data or world / "blues", tmp_path / "out", **options)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()

    def test_no_new_class(self, world, tmp_path):
        self.refused(world, tmp_path, "no new class", data=world / "greens")

    def test_an_unknown_kind_of_model(self, world, tmp_path):
        self.refused(world, tmp_path, "contains no model; give", model="blues")

    def test_an_unknown_method(self, world, tmp_path):
        self.refused(
            world, tmp_path, "--method: unknown method 'plopp'; did you mean 'plop'.* auto, .*gaussian-ex", method="plopp"
        )

    def test_a_method_that_the_model_cannot_use(self, world, tmp_path, monkeypatch):
        monkeypatch.setattr("contseg.models.segmenter.Segmenter.taps", {})
        self.refused(world, tmp_path, "no method can extend .*soft: pyramid: tap 'pyramid'", model="soft", method="pyramid")

    def test_an_unlisted_id_in_a_mask(self, world, tmp_path):
        write_squares(tmp_path / "data", ["blue"])
        Image.fromarray(np.full((48, 48), 7, np.uint8)).save(tmp_path / "data" / "masks" / "3.png")
        self.refused(world, tmp_path, "3.png", data=tmp_path / "data")

    def test_two_classes_of_one_name(self, world, tmp_path):
        write_squares(tmp_path / "data", ["blue"])
        (tmp_path / "data" / "classes.txt").write_text("background\nblue\nBlue\n")
        self.refused(world, tmp_path, "two classes with the same name", data=tmp_path / "data")

    def test_one_image(self, world, tmp_path):
        write_squares(tmp_path / "data", ["blue"], count=1)
        self.refused(world, tmp_path, "only 1 labelled image; label at least 2", data=tmp_path / "data")

    def test_a_folder_that_exists(self, world):
        with pytest.raises(ContsegError, match="base: exists already; choose a new folder with --out"):
            extend(world / "soft", world / "blues", world / "base")

    def test_changed_statistics(self, world, tmp_path):
        copied = tmp_path / "copied"
        copied.mkdir()
        for path in (world / "base").iterdir():
            (copied / path.name).write_bytes(path.read_bytes())
        (copied / "statistics.safetensors").write_bytes((world / "blue" / "statistics.safetensors").read_bytes())
        with pytest.raises(ContsegError, match="the file was changed or cut short"):
            extend(copied, world / "blues", tmp_path / "out")

    @pytest.mark.parametrize(
        ("name", "match"),
        [
            ("boat", "has no class 'boat'; known: background, red"),
            ("background", "'background' is the background, which cannot be forgotten"),
        ],
    )
    def test_a_class_that_cannot_be_forgotten(self, world, tmp_path, name, match):
        with pytest.raises(ContsegError, match=match):
            forget(world / "soft", name, tmp_path / "out")

    def test_the_last_class(self, world, tmp_path):
        with pytest.raises(ContsegError, match="no class would be left"):
            forget(world / "soft", "red", tmp_path / "out")

    def test_merging_extensions_of_different_models(self, world, tmp_path):
        with pytest.raises(ContsegError, match="extends another model"):
            merge(world / "blue", world / "both", tmp_path / "out")

    def test_merging_a_model_that_is_no_extension(self, world, tmp_path):
        with pytest.raises(ContsegError, match="soft: is no extended model"):
            merge(world / "soft", world / "blue", tmp_path / "out")

    def test_merging_the_same_class_twice(self, world, tmp_path):
        with pytest.raises(ContsegError, match="'blue' is also new in"):
            merge(world / "blue", world / "blue", tmp_path / "out")

    def test_merging_without_statistics(self, world, tmp_path):
        extend(world / "soft", world / "blues", tmp_path / "columns", method="gaussian-columns")
        extend(world / "soft", world / "yellows", tmp_path / "other", method="gaussian-columns")
        with pytest.raises(ContsegError, match="method gaussian-columns has no statistics to merge"):
            merge(tmp_path / "columns", tmp_path / "other", tmp_path / "out")


def test_the_result_prints_as_a_table(world, tmp_path):
    done = contseg.extend(world / "base", world / "blues", tmp_path / "out", method="gaussian")
    assert isinstance(done, Extension)
    assert str(done).splitlines()[0].split() == ["class", "result", "before", "after", "agreement"]
    assert str(done).splitlines()[1].startswith("blue        learned  -  ")
