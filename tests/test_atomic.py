"""Files and folders appear complete or not at all, with the mode that the umask gives."""

import os
import stat
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from contseg.atomic import UnwritableError, atomic_file, atomic_folder, writable, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_is_replaced_when_it_is_complete(tmp_path, shared):
    write_text(tmp_path / "a.json", "old")
    with atomic_file(tmp_path / "a.json", shared) as partial:
        partial.write_text("new")
        assert (tmp_path / "a.json").read_text() == "old"
    assert ((tmp_path / "a.json").read_text(), names(tmp_path)) == ("new", ["a.json"])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    write_text(tmp_path / "a.json", "old")
    with suppress(error), atomic_file(tmp_path / "a.json") as partial:
        partial.write_text("half")
        raise error
    assert ((tmp_path / "a.json").read_text(), names(tmp_path)) == ("old", ["a.json"])


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_mode_is_that_of_the_umask_even_if_the_writer_makes_a_private_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        (tmp_path / "a.contseg-partial").touch(mode=0o600)  # what a kill left
        with atomic_file(tmp_path / "a") as partial:
            partial.chmod(0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_two_processes_that_share_a_file_write_to_files_of_their_own(tmp_path):
    with atomic_file(tmp_path / "a", shared=True) as one, atomic_file(tmp_path / "a", shared=True) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert ((tmp_path / "a").read_text(), names(tmp_path)) == ("one", ["a"])


def test_a_folder_appears_when_it_is_complete_and_what_a_kill_left_is_not_in_it(tmp_path):
    (tmp_path / "a.contseg-partial").mkdir()
    (tmp_path / "a.contseg-partial" / "stale").touch()
    with atomic_folder(tmp_path / "a") as partial:
        (partial / "fresh").touch()
        assert not (tmp_path / "a").exists()
    assert (names(tmp_path), names(tmp_path / "a")) == (["a"], ["fresh"])


def test_a_folder_of_a_faster_process_is_kept(tmp_path):
    with atomic_folder(tmp_path / "a", shared=True) as partial:
        (partial / "slow").touch()
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "fast").touch()
    assert (names(tmp_path), names(tmp_path / "a")) == (["a"], ["fast"])


def test_an_error_leaves_no_folder(tmp_path):
    with suppress(ValueError), atomic_folder(tmp_path / "a") as partial:
        (partial / "one").touch()
        raise ValueError
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows does not sync folders")
def test_content_is_synced_before_it_is_renamed_and_the_folder_after(tmp_path, monkeypatch):
    calls = []

    def rename(source, target, replace=os.replace):
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr("os.fsync", lambda file: calls.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file"))
    monkeypatch.setattr("os.replace", rename)
    write_text(tmp_path / "a", "new")
    assert calls == ["file", "rename", "folder"]
    calls.clear()
    with atomic_folder(tmp_path / "b") as partial:
        (partial / "c").mkdir()
        for name in ("one", "c/two"):
            (partial / name).touch()
    assert calls == ["file", "file", "folder"]


def save_npz(path):
    with path.open("wb") as file:
        np.savez(file, array=np.zeros(10_000))


def save_state(path):
    with path.open("wb") as file:
        torch.save({"tensor": torch.zeros(10_000)}, file)


WRITERS = {
    "text": lambda path: path.write_text("a" * 10_000),
    "npz": save_npz,
    "state": save_state,
    "state by path": lambda path: torch.save({"tensor": torch.zeros(10_000)}, path),
    "safetensors": lambda path: save_file({"tensor": torch.zeros(10_000)}, path),
}
UNWRITABLE = r": cannot be written \(.*free\); use another folder$"
FULL = UNWRITABLE.replace("use", "free some space, or use")


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path, largest_file, writer):
    write_text(tmp_path / "a", "old")
    largest_file(3000)
    with pytest.raises(UnwritableError, match=FULL) as caught, atomic_file(tmp_path / "a") as partial:
        WRITERS[writer](partial)
    assert str(caught.value).startswith(f"{tmp_path / 'a'}: ")
    assert " needed, " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ((tmp_path / "a").read_text(), names(tmp_path)) == ("old", ["a"])


def fill(folder):
    with atomic_folder(folder) as partial:
        (partial / "one").write_text("1")
        (partial / "two").write_text("2" * 10_000)


def test_a_full_disk_leaves_no_folder(tmp_path, largest_file):
    largest_file(3000)
    with pytest.raises(UnwritableError, match=FULL):
        fill(tmp_path / "a")
    assert names(tmp_path) == []


@pytest.mark.parametrize("place", ["file/a", "file/b/a", "missing/a", "x" * 300])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, place):
    (tmp_path / "file").touch()
    for write in (atomic_file, atomic_folder) if place != "missing/a" else (atomic_file,):
        with pytest.raises(UnwritableError, match=UNWRITABLE), write(tmp_path / place):
            pass
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file", "/elsewhere/a"), RuntimeError("shapes"), OSError()])
def test_errors_that_are_not_of_writing_pass(tmp_path, error):
    with pytest.raises(type(error)) as caught, writable(tmp_path / "a"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("name", ["a.partial", "a.tmp", "a.part"])
def test_files_and_folders_of_a_user_with_a_similar_name_are_kept(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine").touch()
    with atomic_file(tmp_path / "a") as partial:
        partial.touch()
    (tmp_path / "a").unlink()
    with atomic_folder(tmp_path / "a"):
        pass
    assert names(tmp_path / name) == ["mine"]
