"""Finished runs that are kept in the repository: not trained again, and their figures follow from their matrices."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import leaderboard, table_command
from benchmarks.digits_table import TABLE
from benchmarks.kept_runs import computed_again, keep, read_kept, recipe_digest
from contseg.sweeps.cells import Row, cells_of
from tests.conftest import TINY
from tests.engine.runs import learn

WORDS = [*TINY, "training.epochs=1", "training.batch=10", "training.loggers=[]"]
ROWS = {"mib": Row("MiB", "digits/mib_5-1", seeds=(0,))}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A cell with a finished run."""
    (cell,) = cells_of(ROWS, WORDS, tmp_path_factory.mktemp("runs"))
    learn(cell.folder, cell.recipe)
    return cell


def test_a_finished_run_is_kept_with_its_figures(trained, tmp_path):
    kept = keep(tmp_path, [trained])
    assert kept == read_kept(tmp_path, [trained])
    (result,) = kept.values()
    summary = trained.run.summary()
    assert result.figures == {key: summary[key] for key in ("old", "new", "all", "forgetting")}
    assert keep(tmp_path, [trained]) == kept
    assert len((tmp_path / "mib.jsonl").read_text().splitlines()) == 1


def test_its_figures_can_be_computed_from_its_matrices(trained, tmp_path):
    keep(tmp_path, [trained])
    (pair,) = computed_again(tmp_path / "mib.jsonl").values()
    assert pair[1] == pytest.approx(pair[0], abs=1e-4)


def test_a_kept_run_of_another_recipe_is_not_read(trained, tmp_path):
    keep(tmp_path, [trained])
    (other,) = cells_of(ROWS, [*WORDS, "training.lr=0.5"], tmp_path)
    assert read_kept(tmp_path, [other]) == {}


def test_the_place_of_the_data_and_later_keys_do_not_change_a_recipe(tmp_path):
    one, other, named = (
        cells_of(ROWS, words, tmp_path)[0] for words in (WORDS, [*WORDS, "data.path=x"], [*WORDS, "data.flip=0.5"])
    )
    assert recipe_digest(one) == recipe_digest(other) != recipe_digest(named)
    assert '"clip"' not in one.recipe.model_dump_json(exclude_unset=True)  # a default


def test_a_table_trains_what_is_not_kept_alone(trained, tmp_path, monkeypatch):
    keep(tmp_path / "kept", [trained])
    rows = ROWS | {"finetune": Row("finetune", "digits/finetune_5-1", seeds=(0,))}
    started: list[str] = []

    def train_rows(rows, overrides, out, ways, finished):
        started.extend(cell.row for cell in cells_of(rows, overrides, out) if (cell.row, cell.name) not in finished)
        return {}

    monkeypatch.setattr(table_command, "train_rows", train_rows)
    table = replace(TABLE, sections={"Methods": rows}, kept=tmp_path / "kept")
    options = argparse.Namespace(
        rows=None, seeds=None, docs=tmp_path / "page.md", out=tmp_path, overrides=WORDS, only_table=False, jobs=1,
        accept_changes=False,
    )  # fmt: skip
    assert table_command.make_table(table, options) == 0
    assert started == ["finetune"]
    assert "1 of 2 finished" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize("path", sorted(Path(leaderboard.KEPT).glob("*.jsonl")), ids=lambda path: path.stem)
def test_the_figures_of_the_leaderboard_follow_from_its_matrices(path):
    assert path.stem in leaderboard.TABLE.rows
    for kept, again in computed_again(path).values():
        assert again == pytest.approx(kept, abs=1e-4)
