"""The soak: what it kills ends with equal files, what it counts is on its page."""

import json
import random
import signal
import sys

import pytest

from benchmarks.soak import parsed, soak
from benchmarks.soak_damage import HARMS
from benchmarks.soak_kills import Count, Work, folder_differences, kill
from benchmarks.soak_page import page
from benchmarks.soak_process import Kill, contseg

pytestmark = pytest.mark.skipif(not hasattr(sys, "addaudithook") or sys.platform != "linux", reason="forks processes")
EXTRACT = ["data", "extract", "digits", "--class", "five", "--images", 4]
RESULTS = {
    "kills": {"PLOP": vars(Count(2, 1, {"moment": 3, "write": 2, "signal": 1}, 5, 7, ["plan.json differs"]))},
    "damages": [
        {"place": "finished run", "file": "plan.json", "harm": "empty", "outcome": "refused", "note": ""},
        {"place": "finished run", "file": "plan.json", "harm": "deleted", "outcome": "fault", "note": "traceback"},
    ],
    "inputs": {"security": {"passed": 500, "failed": 1}},
    "cost": {"recipe": "globe/mib_4-1", "epochs": 4, "seconds": 5.0, "spent": 0.1},
    "origin": {"commit": "abc", "cpu": "a CPU", "cores": 2, "seed": 0},
}


@pytest.mark.slow
def test_a_command_ends_by_itself_or_is_killed_before_a_write(tmp_path):
    assert contseg([*EXTRACT, "--out", tmp_path / "a"], tmp_path).code == 0
    planned = Kill(signal.SIGKILL, change=3)
    ended = contseg([*EXTRACT, "--out", tmp_path / "b"], tmp_path, tmp_path / "b", planned)
    assert (ended.code, ended.signalled, (tmp_path / "b").exists()) == (-signal.SIGKILL, True, False)
    assert contseg(["plan", "digits/none"], tmp_path).line.startswith("error: recipe 'digits/none': not found")


@pytest.mark.slow
def test_kills_are_counted_and_ends_compared(tmp_path):
    work = Work(*[lambda out: [*EXTRACT, "--out", out]] * 2, folder_differences)
    count = kill(work, tmp_path, 3, random.Random(0))
    assert (sum(count.kills.values()), count.survived, count.equal, count.lost, count.faults) == (3, 3, count.ends, 0, [])


@pytest.mark.slow
def test_a_difference_is_a_fault(tmp_path):
    work = Work(*[lambda out: [*EXTRACT, "--out", out]] * 2, lambda one, other: "a.png")
    count = kill(work, tmp_path, 1, random.Random(0))
    assert count.equal == 0
    assert count.faults[0].startswith("a.png differs after SIG")


@pytest.mark.parametrize("harm", HARMS)
def test_every_harm_changes_a_file(tmp_path, harm):
    path, foreign = tmp_path / "a", tmp_path / "b"
    path.write_bytes(bytes(range(9)))
    foreign.write_bytes(b"other")
    HARMS[harm](path, foreign, random.Random(0))
    assert not path.exists() or path.read_bytes() != bytes(range(9))


def test_the_page_counts_everything_and_lists_faults():
    text = page(RESULTS)
    assert "5 of 6 kills were survived, 1 of 2 works ended with files equal" in text
    assert "| PLOP | 3 | 2 | 1 | 5 of 6 | 1 of 2 | 7 |" in text
    assert "* PLOP: plan.json differs" in text
    assert "| finished run | `plan.json` | 2 | 0 | 1 | 0 | 1 |" in text
    assert "* finished run, plan.json, deleted: traceback" in text
    assert "| security | 500 | 1 |" in text
    assert "take 100 ms of an epoch of the demo" in text
    assert "| commit | abc |" in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_page_of_the_last_results_is_written_without_a_new_measurement(tmp_path, capsys):
    options = parsed(["--only-page", "--out", str(tmp_path), "--docs", str(tmp_path / "page.md")])
    for name, part in RESULTS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    assert soak(options) == 2
    assert (tmp_path / "page.md").read_text() == page(RESULTS)
