"""The leaderboard: the rows of both tables and those of masks, with three seeds and one or three class orders each."""

import pytest

from benchmarks import digits_table, mask_rows, voc_table
from benchmarks.leaderboard import LATER, ORDERS, SEEDS, TABLE
from benchmarks.leaderboard import masks as masks_of
from contseg.differences import differences
from contseg.recipes.read import read_recipe
from contseg.sweeps.cells import OWN, cells_of
from contseg.sweeps.page import page


def test_it_has_every_row_of_both_tables_and_those_of_masks_with_every_seed():
    masks = [name for rows in masks_of(tree="data.path=x").values() for name in rows]
    pixels = [f"digits-{name}" for name in digits_table.TABLE.rows] + [f"voc-{name}" for name in voc_table.TABLE.rows]
    assert list(TABLE.rows) == pixels + masks
    for name, row in TABLE.rows.items():
        once = name in masks or name.partition("-")[2].partition("_")[0] in LATER
        assert (row.seeds, row.orders) == (SEEDS, (OWN,) if once else ORDERS)
        assert len(row.runs()) == len(set(row.runs())) == (3 if once else 9)


@pytest.mark.parametrize("name", mask_rows.synthetic_voc("data.path=x"))
def test_a_row_of_masks_has_the_steps_and_the_images_of_the_packaged_recipe(tmp_path, name):
    row = mask_rows.synthetic_voc("data.path=x")[name]
    (cell, *_) = cells_of({name: row}, [], tmp_path)
    changed = differences(read_recipe(row.recipe).model_dump(), cell.recipe.model_dump())
    others = {key for key in changed if not key.startswith(("network.", "training.", "method.", "scenario.memory"))}
    assert others <= {"data.crop", "data.test_crop", "data.path", "method"}


def test_a_row_names_each_key_once():
    for name, row in TABLE.rows.items():
        keys = [word.partition("=")[0] for word in row.overrides]
        assert len(keys) == len(set(keys)), name


def test_what_has_not_been_run_has_a_dash():
    text = page(TABLE, {})
    runs = sum(len(row.runs()) for row in TABLE.rows.values())
    assert f"0 of {runs} finished, seeds 0, 1, 2, class orders: own, seed:1, seed:2" in text
    assert "| SimCIS | - | - | - | - | - | 0 |" in text
    assert "| MiB | - | - | - | - | - | 0 |" in text
