"""The leaderboard: the rows of both tables, with three seeds and one or three class orders each."""

from benchmarks import digits_table, voc_table
from benchmarks.leaderboard import LATER, ORDERS, SEEDS, TABLE
from contseg.sweeps.cells import OWN
from contseg.sweeps.page import page


def test_it_has_every_row_of_both_tables_with_every_seed():
    names = [f"digits-{name}" for name in digits_table.TABLE.rows] + [f"voc-{name}" for name in voc_table.TABLE.rows]
    assert list(TABLE.rows) == names
    for name, row in TABLE.rows.items():
        later = name.partition("-")[2].partition("_")[0] in LATER
        assert (row.seeds, row.orders) == (SEEDS, (OWN,) if later else ORDERS)
        assert len(row.runs()) == len(set(row.runs())) == (3 if later else 9)


def test_what_has_not_been_run_has_a_dash():
    text = page(TABLE, {})
    runs = sum(len(row.runs()) for row in TABLE.rows.values())
    assert f"0 of {runs} finished, seeds 0, 1, 2, class orders: own, seed:1, seed:2" in text
    assert "| MiB | - | - | - | - | - | 0 |" in text
