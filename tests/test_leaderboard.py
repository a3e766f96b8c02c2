"""The leaderboard: the rows of both tables and those of masks, with three seeds and one or three class orders each."""

from benchmarks import digits_table, mask_rows, voc_table
from benchmarks.leaderboard import LATER, ORDERS, SEEDS, TABLE
from contseg.sweeps.cells import OWN
from contseg.sweeps.page import page


def test_it_has_every_row_of_both_tables_and_those_of_masks_with_every_seed():
    masks = [f"{data}-{name}" for data in ("digits", "voc", "globe") for name in mask_rows.digits_rows()]
    assert len(TABLE.rows) == len(digits_table.TABLE.rows) + len(voc_table.TABLE.rows) + len(masks) // 3
    for name, row in TABLE.rows.items():
        once = name in masks or name.partition("-")[2].partition("_")[0] in LATER
        assert (row.seeds, row.orders) == (SEEDS, (OWN,) if once else ORDERS)
        assert len(row.runs()) == len(set(row.runs())) == (3 if once else 9)


def test_what_has_not_been_run_has_a_dash():
    text = page(TABLE, {})
    runs = sum(len(row.runs()) for row in TABLE.rows.values())
    assert f"0 of {runs} finished, seeds 0, 1, 2, class orders: own, seed:1, seed:2" in text
    assert "| SimCIS | - | - | - | - | - | 0 |" in text
    assert "| MiB | - | - | - | - | - | 0 |" in text
