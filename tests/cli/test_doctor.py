"""`contseg doctor`: what it finds, what to do about it, and a self-test."""

import re
import shutil
from collections import namedtuple

import pytest

from contseg.cli import doctor
from tests.engine.runs import command


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def advice(rows) -> dict[str, str]:
    return {what: advice for what, _, advice in rows}


def test_everything_is_listed_without_a_self_test():
    code, said, errors = command("doctor", "--quick")
    assert (code, errors) == (0, "")
    for what in ("contseg", "packages", "GPUs", "cores", "locale", "cache", "folder", "extra geo"):
        assert f" {what} " in said
    assert "ok: " not in said


def test_the_self_test_trains_and_predicts():
    code, said, errors = command("doctor")
    assert (code, errors) == (0, "")
    assert [line.partition(",")[0] for line in said.splitlines() if line.startswith("ok: ")][:4] == [
        f"ok: {what}".partition(",")[0] for what in doctor.checks(doctor.Path())
    ][:4]
    seconds = re.search(r"^no problems found in (\d+) s$", said, re.MULTILINE)
    assert seconds
    assert sum(float(found) for found in re.findall(r"^ok: .*, ([\d.]+) s$", said, re.MULTILINE)) <= int(seconds[1]) + 1


def test_a_failed_check_is_one_line(monkeypatch):
    def broken(folder):
        raise RuntimeError("no such\ninstruction")

    monkeypatch.setattr(doctor, "checks", lambda folder: {"a network is trained": lambda: broken(folder)})
    code, said, errors = command("doctor")
    assert code == 2
    assert "no problems found" not in said
    assert errors == (
        "error: doctor: not true on this machine: a network is trained (RuntimeError: no such instruction);"
        " reinstall contseg\n"
    )


def test_little_shared_memory_is_followed_by_what_to_do(monkeypatch, tmp_path):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(doctor, "SHARED", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 20))
    assert "--shm-size" in advice(doctor.storage())["shared memory"]


def test_a_cache_that_cannot_be_written_is_followed_by_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONTSEG_CACHE", str(tmp_path / "file"))
    assert "CONTSEG_CACHE" in advice(doctor.storage())["cache"]


def test_a_missing_extra_is_followed_by_its_installation(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["numpy>=1", 'nowhere>=2; extra == "far"'])
    assert advice(doctor.extras()) == {"extra far": 'install it with: pip install "contseg[far]"'}


def test_a_terminal_without_utf_8_is_followed_by_what_to_do(monkeypatch):
    class Terminal:
        encoding = "cp1252"

    monkeypatch.setattr(doctor.sys, "stdout", Terminal())
    assert "PYTHONUTF8=1" in advice(doctor.system())["locale"]
