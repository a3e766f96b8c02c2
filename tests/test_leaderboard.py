"""The leaderboard: the rows of both tables, with three seeds and three class orders each."""

from benchmarks import digits_table, voc_table
from benchmarks.leaderboard import ORDERS, SEEDS, TABLE
from contseg.sweeps.page import page


def test_it_has_every_row_of_both_tables_in_nine_runs():
    assert len(TABLE.rows) == len(digits_table.TABLE.rows) + len(voc_table.TABLE.rows)
    for row in TABLE.rows.values():
        assert (row.seeds, row.orders) == (SEEDS, ORDERS)
        assert len(row.runs()) == len(set(row.runs())) == 9


def test_what_has_not_been_run_has_a_dash():
    text = page(TABLE, {})
    assert f"0 of {9 * len(TABLE.rows)} finished, seeds 0, 1, 2, class orders: own, seed:1, seed:2" in text
    assert "| MiB | - | - | - | - | - | 0 |" in text
