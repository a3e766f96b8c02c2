"""The frontier: every method on five protocols, with an order per seed, and a page that states which goals are met."""

from dataclasses import replace

import pytest

from benchmarks.frontier import DEFAULT, JOINT, METHODS, PROTOCOLS, TABLE, domains_of
from benchmarks.frontier_page import Outcome, frontier, goals, section, write_frontier
from contseg.data.datasets.globe import Globe
from contseg.methods.registry import METHODS as REGISTERED
from contseg.sweeps.cells import cells_of
from contseg.sweeps.local import LocalExecutor
from contseg.sweeps.page import NOTES
from contseg.sweeps.runs import Leader, tasks_of
from tests.conftest import TINY
from tests.kinds import PIXELS

ROWS = dict(TABLE.rows)


def outcome(old: float, new: float, seconds: float = 1.0, whole: float = 50.0) -> Outcome:
    figures = {"old": old, "new": new, "all": whole, "hIoU": 2 * old * new / (old + new), "average": 1.0, "forgetting": None}
    return Outcome(figures, seconds, trained=1200, megabytes=0.5)


def test_every_method_of_the_house_is_on_the_page():
    assert METHODS.keys() == set(PIXELS)
    for title, protocol in PROTOCOLS.values():
        assert len(TABLE.sections[title]) == len(protocol.methods) + len(JOINT) + (protocol.longer is not None)
    missing = {prefix: set(METHODS) - set(protocol.methods) for prefix, (_, protocol) in PROTOCOLS.items()}
    by_class = {
        "frozen",
        "lwf-mc",
        "ssul",
        "idec",
        "lag",
        "dkd",
        "star",
        "adapter",
        "reminder",
        "dft",
        "rcil",
        "barm",
        "mbs",
    }
    missing = {prefix: methods & set(PIXELS) for prefix, methods in missing.items()}
    assert missing.pop("domain") == {"ilt", "sdr", *by_class}
    assert missing.pop("overlapped") == missing.pop("partitioned") == {"ilt", "sdr", "rcil"}
    assert not any(missing.values())


@pytest.mark.parametrize("name", ROWS)
def test_every_seed_has_a_recipe_with_its_own_order(tmp_path, name):
    cells = cells_of({name: ROWS[name]}, [], tmp_path)
    scenarios = [cell.recipe.scenario for cell in cells]
    assert [cell.seed for cell in cells] == [0, 1, 2]
    assert len({str((one.order, one.domains)) for one in scenarios}) == 3
    assert len({str(one.model_dump(exclude={"order", "domains"})) for one in scenarios}) == 1
    assert (scenarios[0].split == "offline") == (name.rpartition("/")[2] in JOINT)


def test_a_domain_order_contains_every_continent():
    assert len({domains_of(seed) for seed in range(3)}) == 3
    assert all(name in domains_of(1)[0] for name in Globe.domains)


def test_a_table_lists_the_best_harmonic_mean_first_and_the_upper_bounds_last():
    rows = next(iter(TABLE.sections.values()))
    outcomes = {
        "overlapped/pyramid": [outcome(40, 40), outcome(30, 30)],
        "overlapped/mib": [outcome(20, 20)],
        "overlapped/joint-features": [outcome(50, 50, whole=100.0)],
    }
    lines = section(rows, outcomes).splitlines()
    assert lines[2].startswith("| Pyramid | 35.0 ± 7.1 |")
    assert "| 50 | 30.0 | 1.0 | 1.2 k | 0.5 |" in lines[2]  # of joint, worst order, seconds, parameters, megabytes
    assert lines[3].startswith("| MiB | 20.0 |")
    assert lines[2 + len(rows) - 1].startswith("| joint, same head |")
    assert "Pyramid 1" in section(rows, outcomes)
    assert "MiB 2" in section(rows, outcomes)


def test_goals_are_met_or_missed_with_their_numbers():
    outcomes = {
        "overlapped/pyramid": [outcome(40, 40, seconds=2.0)],
        "overlapped/gaussian": [outcome(45, 45, seconds=1.0)],
        "overlapped/mib": [outcome(20, 20, seconds=9.0)],
        "overlapped/joint-features": [outcome(50, 50)],
    }
    rows = {name: replace(ROWS[name], seeds=(0,)) for name in outcomes}
    table = replace(TABLE, sections={"Overlapped": rows, "Again": {**rows, "overlapped/plop": ROWS["overlapped/plop"]}})
    lines = goals(table, outcomes)
    assert "best hIoU: **missed**, 40.0 against 45.0 of Gaussian." in lines[0]
    assert "less time than the cheapest gradient method: met, 2.0 s per step against 9.0 s of MiB." in lines[1]
    assert "95 % of joint with the same head: met, 100 %." in lines[2]
    assert lines[3:] == ["* Again: not finished."]


def test_the_default_is_a_method_without_updates():
    assert REGISTERED[DEFAULT].learns_without_updates


@pytest.mark.slow
def test_a_page_is_written_from_runs_and_keeps_its_notes(tmp_path):
    rows = {name: replace(ROWS[name], seeds=(0,), overrides=(*ROWS[name].overrides, *TINY)) for name in ("digits/pyramid",)}
    table = replace(TABLE, sections={"Digits": rows | {"digits/joint-features": ROWS["digits/joint-features"]}})
    cells = cells_of(rows, ["training.epochs=[1, 0]", "training.batch=10"], tmp_path / "runs")
    cache = tmp_path / "runs" / "cache"
    assert Leader(tasks_of(cells), LocalExecutor(cells, cache, 1), cache).lead() == {}
    page = tmp_path / "page.md"
    page.write_text(f"{NOTES[0]}\nkept\n{NOTES[1]}\n", encoding="utf-8")
    write_frontier(table, page, ["training.epochs=[1, 0]", "training.batch=10"], tmp_path / "runs")
    text = page.read_text(encoding="utf-8")
    assert "\nkept\n" in text
    assert "| Pyramid | " in text
    assert " | 0 | " in text  # no parameter is trained in the last step
    assert frontier(table, {}, "", "\nkept\n").count("not finished") == 1
