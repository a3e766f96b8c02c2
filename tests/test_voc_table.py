"""The table of VOC recipes on synthetic images: packaged recipes of another size, and a page that tells how to repeat it."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import voc_table
from benchmarks.voc_table import SEEDS, TABLE, with_images
from contseg.data.fake import write_fake
from contseg.data.open import open_dataset
from contseg.differences import differences
from contseg.recipes.read import read_recipe
from contseg.sweeps.cells import cells_of
from contseg.sweeps.page import page
from contseg.sweeps.runs import tasks_of

ROOT = Path(__file__).parent.parent
SIZES = {"network.backbone.name", "network.backbone.width", "data.crop", "data.test_crop", "training.epochs"}
RATES = {"training.lr_later"}
PLACES = {"data.path", "training.workers", "training.seed"}


@pytest.mark.parametrize("name", TABLE.rows)
def test_a_row_is_a_packaged_recipe_of_another_size_and_rate(tmp_path, name):
    row = TABLE.rows[name]
    packaged = read_recipe(row.recipe)
    changed = differences(packaged.model_dump(), cells_of({name: row}, ["data.path=x"], tmp_path)[0].recipe.model_dump())
    assert changed.keys() <= SIZES | RATES | PLACES


def test_all_rows_are_scored_on_whole_images(tmp_path):
    assert {cell.recipe.data.test_crop for cell in cells_of(TABLE.rows, ["data.path=x"], tmp_path)} == {None}


def test_every_method_has_both_splits_with_the_seeds_of_the_split():
    for rows, (split, seeds) in zip(TABLE.sections.values(), SEEDS.items(), strict=True):
        assert {row.seeds for row in rows.values()} == {seeds}
        assert all(read_recipe(row.recipe).scenario.split == split for row in rows.values())
    assert [len(rows) for rows in TABLE.sections.values()] == [15, 15]


def test_methods_and_splits_that_learn_step_0_alike_share_it(tmp_path):
    tree = write_fake("voc", tmp_path / "VOC2012", train=40, test=4, size=(32, 32))
    rows = {
        f"{method}_{split}": TABLE.rows[f"{method}_{split}"] for method in ("finetune", "plop", "idec") for split in SEEDS
    }
    keys = {task.cell.row: task.key for task in tasks_of(cells_of(rows, [f"data.path={tree}"], tmp_path)[: len(rows)])}
    assert keys["finetune_15-5"] == keys["finetune_15-1"] == keys["plop_15-5"] == keys["plop_15-1"]
    assert keys["idec_15-5"] == keys["idec_15-1"] != keys["plop_15-1"]


def test_images_are_written_once(tmp_path, monkeypatch):
    monkeypatch.setattr(voc_table, "IMAGES", {"train": 6, "test": 3})
    assert with_images(tmp_path) == [f"data.path={tmp_path / 'VOC2012'}"]
    voc = open_dataset("voc", tmp_path / "VOC2012")
    assert [len(voc.names(subset)) for subset in ("train", "test")] == [6, 3]
    monkeypatch.setattr(voc_table, "IMAGES", {"train": 9, "test": 9})
    with_images(tmp_path)
    assert len(open_dataset("voc", tmp_path / "VOC2012").names("train")) == 6


def test_the_command_line_on_the_page_makes_the_recipe_of_a_cell(tmp_path):
    (line,) = [line for line in page(TABLE, {}).splitlines() if "--data" in line]
    _, *command, option, folder = shlex.split(line.partition(" network.")[0])
    overrides = shlex.split(line.partition("VOC2012 ")[2])
    assert (command[:2], option) == (["contseg", "train"], "--data")
    (cell,) = [
        cell
        for cell in cells_of(TABLE.rows, ["data.path=runs/voc-table/VOC2012"], tmp_path)
        if (cell.row, cell.seed) == ("plop_15-1", 0)
    ]
    assert read_recipe(command[2], [*overrides, f"data.path={folder}"]) == cell.recipe


@pytest.mark.slow
def test_a_row_is_trained_and_shown(tmp_path):
    words = ["--rows", "mib_15-5", "--seeds", "0", "--out", str(tmp_path / "runs"), "--docs", str(tmp_path / "page.md")]
    small = ["network.width=8", "network.head_width=16", "data.crop=32", "data.test_crop=32", "training.epochs=1"]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.voc_table", *words, *small],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )
    text = (tmp_path / "page.md").read_text()
    wanted = sum(len(row.runs()) for row in TABLE.rows.values())
    assert f"1 of {wanted} finished" in text
    assert "| MiB | " in text
    assert "finetune_15-5 0, 1, 2; " in text
    assert "; mib_15-5 1, 2; " in text
