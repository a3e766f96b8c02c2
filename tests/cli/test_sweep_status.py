"""`contseg sweep --status` on a terminal: a process of its own, on a pseudo-terminal."""

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from contseg.cli.sweep_progress import CLOCK, EVERY, is_led
from contseg.lock import owned
from contseg.sweeps.cells import Cell
from contseg.sweeps.runs import begin
from contseg.sweeps.sweep import FILE, Sweep
from tests.conftest import TINY
from tests.engine.processes import wait_for
from tests.engine.runs import command


def sweep_in(folder: Path) -> list[Cell]:
    """Two runs that have begun."""
    sweep = Sweep(recipes=["digits/mib_5-1"], seeds=2, overrides=TINY)
    sweep.write(folder)
    for cell in (cells := sweep.cells(folder)):
        begin(cell)
    return cells


def finish(cell: Cell) -> None:
    cell.run.write_text("summary.json", json.dumps({"steps": 6, "old": 50.0, "new": 25.0, "all": 40.0}))


class Terminal:
    """A command on a pseudo-terminal, and all that it wrote."""

    def __init__(self, *words: str):
        import pty

        self.written, (self.end, end) = "", pty.openpty()
        os.set_blocking(self.end, False)
        environment = os.environ | {"COLUMNS": "100", "LINES": "40", "TERM": "xterm"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "contseg", *words], stdin=end, stdout=end, stderr=end, env=environment
        )
        os.close(end)

    def shows(self, text: str) -> bool:
        """Whether a text was written since the last one that was found."""
        with suppress(OSError):  # nothing new, or the process ended
            self.written += os.read(self.end, 1 << 16).decode(errors="replace")
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.written)
        if text in plain:
            self.written = plain.partition(text)[2]
        return text in plain


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals")
def test_a_live_table_stays_between_two_runs_of_a_leader_and_ends_with_the_sweep(tmp_path):
    first, second = sweep_in(tmp_path)
    clock = tmp_path / CLOCK
    with owned(first.folder):
        terminal = Terminal("sweep", "--status", str(tmp_path))
        wait_for(lambda: terminal.shows("2 runs: 0 done, 1 running, 1 waiting, 0 failed"), terminal.process)
        finish(first)
        clock.write_text('{"seconds": 1}')  # as a leader does every few seconds
    wait_for(lambda: terminal.shows("2 runs: 1 done, 0 running, 1 waiting, 0 failed"), terminal.process)
    with owned(second.folder):
        wait_for(lambda: terminal.shows("│ digits-mib_5-1, seed 0 │ done "), terminal.process)
        wait_for(lambda: terminal.shows("2 runs: 1 done, 1 running, 0 waiting, 0 failed"), terminal.process)
        finish(second)
    wait_for(lambda: terminal.shows("2 runs: 2 done, 0 running, 0 waiting, 0 failed"))
    assert terminal.process.wait(60) == 0


def test_a_sweep_is_led_while_its_clock_is_written(tmp_path):
    assert not is_led(tmp_path)
    (tmp_path / CLOCK).write_text("{}")
    assert is_led(tmp_path)
    stopped = (tmp_path / CLOCK).stat().st_mtime - 4 * EVERY
    os.utime(tmp_path / CLOCK, (stopped, stopped))
    assert not is_led(tmp_path)


def test_the_file_of_a_sweep_has_the_status_of_its_folder(tmp_path):
    finish(sweep_in(tmp_path)[0])
    printed = command("sweep", "--status", tmp_path)[1]
    assert "2 runs: 1 done, 0 running, 1 waiting, 0 failed" in printed
    assert command("sweep", "--status", tmp_path / FILE)[1] == printed
