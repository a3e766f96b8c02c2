"""A manifest records what was written to a folder: a file that differs from it is found."""

import json
import multiprocessing
import os
from contextlib import suppress

import pytest

from contseg.errors import ContsegError
from contseg.manifest import NAME, Manifest, check_file


@pytest.fixture
def manifest(tmp_path):
    """A manifest of one file, `steps/00/a.bin`."""
    manifest = Manifest(tmp_path)
    (tmp_path / "steps" / "00").mkdir(parents=True)
    write(manifest, b"content")
    return manifest


def path_of(manifest):
    return manifest.folder / "steps" / "00" / "a.bin"


def write(manifest, content):
    with manifest.writing(path_of(manifest)) as partial:
        partial.write_bytes(content)


def test_an_entry_has_size_and_digest_under_a_relative_path(manifest):
    entry = json.loads((manifest.folder / NAME).read_text())["files"]["steps/00/a.bin"]
    assert entry["size"] == 7
    assert entry["sha256"] == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"


@pytest.mark.parametrize("bit", [0, 20, 55])
def test_a_flipped_bit_is_found(manifest, bit):
    content = bytearray(b"content")
    content[bit // 8] ^= 1 << bit % 8
    path_of(manifest).write_bytes(content)
    for check in (manifest.check, check_file):
        with pytest.raises(ContsegError, match=r"a\.bin: damaged: its SHA-256 is not the one that was written; restore"):
            check(path_of(manifest))
    assert not manifest.is_sound(path_of(manifest))


@pytest.mark.parametrize("content", [b"", b"cont", b"content and more"])
def test_another_length_is_found(manifest, content):
    path_of(manifest).write_bytes(content)
    with pytest.raises(ContsegError, match="damaged"):
        manifest.check(path_of(manifest))


def test_a_lost_file_is_found(manifest):
    path_of(manifest).unlink()
    with pytest.raises(ContsegError, match=r"a\.bin: missing, although it was written; train again"):
        manifest.check(path_of(manifest), "train again")


def test_files_without_an_entry_pass(manifest, tmp_path):
    (tmp_path / "other").touch()
    manifest.check(tmp_path / "other")
    check_file(tmp_path / "other")
    Manifest(tmp_path / "nowhere").check(tmp_path / "nowhere" / "a")


@pytest.mark.parametrize("content", [b"content", b"changed"])
def test_a_kill_between_manifest_and_file_leaves_a_sound_file(manifest, content, monkeypatch):
    def killed(source, target, replace=os.replace):
        if target == path_of(manifest):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("os.replace", killed)
    with suppress(KeyboardInterrupt):
        write(manifest, content)
    assert path_of(manifest).read_bytes() == b"content"
    manifest.check(path_of(manifest))


def test_an_error_while_writing_changes_neither_file_nor_manifest(manifest):
    before = manifest.entries()
    with suppress(ValueError), manifest.writing(path_of(manifest)) as partial:
        partial.write_bytes(b"half")
        raise ValueError
    assert manifest.entries() == before
    manifest.check(path_of(manifest))


def test_a_renamed_file_takes_its_entry_along(manifest):
    new = path_of(manifest).with_name("b.bin")
    manifest.rename(path_of(manifest), new)
    manifest.check(new)
    new.write_bytes(b"changed")
    with pytest.raises(ContsegError, match=r"b\.bin: damaged"):
        manifest.check(new)


def test_a_file_that_grows_has_only_its_name(manifest, tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("one\n")
    manifest.record(log, grows=True)
    log.write_text("one\ntwo\n")
    manifest.check(log)
    assert manifest.entries()["log.txt"] == {"sha256": None, "size": None}
    assert manifest.owned() == {path_of(manifest), log}


def test_only_recorded_files_that_exist_are_owned(manifest, tmp_path):
    (tmp_path / "notes.txt").write_text("of the user")
    assert manifest.owned() == {path_of(manifest)}
    manifest.forget(path_of(manifest))
    assert manifest.owned() == set()


def test_a_file_behind_a_link_out_of_the_folder_is_not_owned(tmp_path):
    folder, outside = tmp_path / "run", tmp_path / "outside"
    for each in (folder, outside):
        each.mkdir()
    (folder / "link").symlink_to(outside)
    (outside / "photo").touch()
    Manifest(folder).record(folder / "link" / "photo")
    assert Manifest(folder).owned() == set()


def crafted(files):
    from contseg.manifest import _digest

    return json.dumps({"files": files, "sha256": _digest(files)})


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "null", "{", '{"files": []}', '{"files": {}, "sha256": "other"}', "[" * 100_000,
        crafted({"../photo": {"sha256": None, "size": None}}), crafted({"/etc/passwd": {"sha256": None, "size": None}}),
        crafted(["a"]), crafted({"a": 3}),
    ],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_a_damaged_manifest_is_one_line(manifest, content):
    (manifest.folder / NAME).write_text(content)
    for use in (lambda: manifest.check(path_of(manifest)), manifest.owned, lambda: write(manifest, b"new")):
        with pytest.raises(
            ContsegError, match=r"manifest\.json: damaged, or of another program; restore it, or move it"
        ) as caught:
            use()
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="there are no named pipes")
@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", None)], ids=["folder", "pipe"])
def test_a_manifest_that_is_no_file_is_one_line_and_not_waited_for(manifest, make):
    manifest.path.unlink()
    make(manifest.path)
    check_file(path_of(manifest))
    with pytest.raises(ContsegError, match=r"manifest\.json: damaged, or of another program; restore it"):
        manifest.check(path_of(manifest))


def test_a_damaged_manifest_of_ours_is_found_by_whatever_reads_a_file(manifest):
    manifest.path.write_text(manifest.path.read_text().replace("7", "8"))
    with pytest.raises(ContsegError, match=r"manifest\.json: damaged"):
        check_file(path_of(manifest))


def test_a_manifest_of_another_program_is_neither_read_nor_overwritten(tmp_path):
    (tmp_path / NAME).write_text('{"name": "a web page"}')
    (tmp_path / "model.safetensors").touch()
    check_file(tmp_path / "model.safetensors")
    with pytest.raises(ContsegError, match="of another program"):
        Manifest(tmp_path).record(tmp_path / "model.safetensors")
    assert (tmp_path / NAME).read_text() == '{"name": "a web page"}'


def record_many(folder, names):
    for name in names:
        with Manifest(folder).writing(folder / name) as partial:
            partial.write_text(name)


def test_processes_that_write_to_one_folder_lose_no_entry(tmp_path):
    names = [[f"{number}-{count}" for count in range(20)] for number in range(2)]
    processes = [multiprocessing.Process(target=record_many, args=(tmp_path, part)) for part in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert set(Manifest(tmp_path).entries()) == {*names[0], *names[1]}
