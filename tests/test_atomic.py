"""Files and folders appear complete or not at all, with the mode that the umask gives."""

import os
import stat
from contextlib import suppress

import pytest

from contseg.atomic import atomic_file, atomic_folder, write_text


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
        (tmp_path / "a.partial").touch(mode=0o600)  # what a kill left
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
    (tmp_path / "a.partial").mkdir()
    (tmp_path / "a.partial" / "stale").touch()
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
