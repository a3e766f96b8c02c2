"""A new run deletes the files of the run that it replaces, and no file of the user."""

import pytest

from contseg.engine.overwrite import clear, discard, require_free, would_delete
from contseg.errors import ContsegError
from contseg.manifest import Manifest

FILES = (
    "recipe.yaml",
    "plan.json",
    "metrics.jsonl",
    "report.html",
    "steps/00/state.pt",
    "tensorboard/events.out.tfevents.1",
)
MINE = (
    "mine.txt",
    "log.md",
    "steps/mine.txt",
    "steps/00/mine.pt",
    "steps/best/state.pt",
    "tensorboard/mine.txt",
    "photos/0.png",
)


def fill(folder, names) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def files(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"manifest.json"}


@pytest.fixture(params=["this version", "an earlier version", "begun by an earlier version"])
def run(request, tmp_path):
    """The folder of a run, as versions with and without a manifest leave it."""
    folder = tmp_path / "run"
    fill(folder, FILES)
    if request.param == "this version":
        Manifest(folder).record(*(folder / name for name in FILES))
    elif request.param == "begun by an earlier version":
        Manifest(folder).record(folder / "steps/00/state.pt")
    return folder


def test_the_files_of_the_run_are_deleted_and_all_others_are_kept(run):
    fill(run, MINE)
    clear(run, overwrite=True)
    assert files(run) == set(MINE)


def test_folders_without_files_of_the_user_are_deleted(run):
    clear(run, overwrite=True)
    assert {path.name for path in run.iterdir()} <= {"manifest.json"}


def test_files_that_a_killed_run_did_not_complete_are_deleted(run):
    fill(run, ("plan.json.contseg-partial", "steps/00/state.pt.contseg-partial", "download.partial"))
    clear(run, overwrite=True)
    assert files(run) == {"download.partial"}


def test_nothing_is_deleted_without_overwrite(run):
    before = files(run)
    with pytest.raises(ContsegError, match="contains a run already; continue it with --resume"):
        clear(run)
    assert files(run) == before


def test_nothing_is_deleted_outside_the_folder(run, tmp_path):
    (run / "steps").rename(tmp_path / "far")
    (run / "steps").symlink_to(tmp_path / "far")
    with pytest.raises(ContsegError, match=r"state\.pt: exists, and the run in the folder did not write it"):
        clear(run, overwrite=True)
    assert files(tmp_path / "far") == {"00/state.pt"}


@pytest.mark.parametrize("name", ["log.txt", "summary.json", "steps/07/state.pt"])
def test_a_file_of_the_user_that_the_new_run_would_replace_is_named_and_nothing_is_deleted(tmp_path, name):
    fill(tmp_path, FILES)
    Manifest(tmp_path).record(*(tmp_path / name for name in FILES))
    fill(tmp_path, [name])
    with pytest.raises(ContsegError, match=f"{name}: exists, and the run in the folder did not write it; move it"):
        clear(tmp_path, overwrite=True)
    assert files(tmp_path) == {*FILES, name}


@pytest.mark.parametrize("names", [["recipe.yaml"], ["recipe.yaml", "report.html", "steps/00/state.pt"], ["a.txt"]])
def test_a_folder_of_the_user_is_no_run_even_with_a_recipe_of_that_name(tmp_path, names):
    fill(tmp_path, names)
    with pytest.raises(ContsegError, match="is not empty and contains no run"):
        clear(tmp_path, overwrite=True)
    assert files(tmp_path) == set(names)


def test_a_run_that_was_being_replaced_when_the_command_was_killed_can_be_replaced(tmp_path):
    fill(tmp_path, [*FILES, "mine.txt"])
    Manifest(tmp_path).record(*(tmp_path / name for name in FILES))
    for name in FILES:
        (tmp_path / name).unlink()
    require_free(tmp_path, overwrite=True)
    clear(tmp_path, overwrite=True)
    assert files(tmp_path) == {"mine.txt"}


LEFT = (
    [],
    ["manifest.json.contseg-partial", "recipe.yaml.contseg-partial"],
    ["manifest.json", "recipe.yaml.contseg-partial"],
)


@pytest.mark.parametrize("names", LEFT, ids=["lock", "manifest", "recipe"])
def test_what_a_command_left_that_was_killed_before_its_run_began_is_no_run(tmp_path, names):
    fill(tmp_path, ["run.lock", *names])
    if "manifest.json" in names:
        (tmp_path / "manifest.json").unlink()
        fill(tmp_path, ["recipe.yaml"])
        Manifest(tmp_path).record(tmp_path / "recipe.yaml")
        (tmp_path / "recipe.yaml").unlink()
    clear(tmp_path)
    fill(tmp_path, ["mine.txt"])
    with pytest.raises(ContsegError, match=r"is not empty and contains no run|contains a run already"):
        clear(tmp_path)


def test_a_discarded_run_leaves_nothing_but_files_of_the_user(run):
    fill(run, ["steps/mine.txt"])
    (run / "steps/00/state.pt").unlink()
    discard(run)
    assert [path.relative_to(run).as_posix() for path in run.rglob("*")] == ["steps", "steps/mine.txt"]


def test_a_discarded_run_leaves_no_folder(run):
    (run / "steps/00/state.pt").unlink()
    discard(run)
    assert not run.exists()


def test_a_run_with_a_saved_state_is_not_discarded(run):
    discard(run)
    assert files(run) == set(FILES)


def test_files_that_would_be_deleted_are_known(run):
    fill(run, MINE)
    for name in (".", "recipe.yaml", "steps", "steps/00", "steps/00/state.pt"):
        assert would_delete(run, run / name), name
    for name in ("..", "mine.txt", "photos", "steps/00/mine.pt"):
        assert not would_delete(run, run / name), name
