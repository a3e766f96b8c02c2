"""Which files are found below a folder, and what of a picture file is read."""

import numpy as np
import pytest

from contseg.data.files import read_image, read_mask, write_palette_png
from contseg.data.listing import files_below, image_files
from contseg.errors import ContsegError


def tree(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names_of(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


class TestWalk:
    def test_images_are_found_at_any_depth_sorted_and_with_any_case_of_suffix(self, tmp_path):
        tree(tmp_path, "b.png", "a/c.JPG", "a/notes.txt")
        assert names_of(image_files(tmp_path), tmp_path) == ["a/c.JPG", "b.png"]
        assert names_of(files_below(tmp_path), tmp_path) == ["a/c.JPG", "a/notes.txt", "b.png"]

    def test_hidden_files_and_folders_are_left_out(self, tmp_path):
        tree(tmp_path, "a.png", "._a.png", ".hidden.png", ".ipynb_checkpoints/a.png", "b/.trash/c.png")
        assert names_of(image_files(tmp_path), tmp_path) == ["a.png"]

    def test_a_hidden_root_is_read(self, tmp_path):
        tree(tmp_path / ".data", "a.png")
        assert len(image_files(tmp_path / ".data")) == 1

    def test_a_folder_named_like_an_image_is_no_image_but_what_is_in_it_is(self, tmp_path):
        tree(tmp_path, "scan.png/a.png")
        assert names_of(image_files(tmp_path), tmp_path) == ["scan.png/a.png"]

    def test_a_linked_folder_is_followed(self, tmp_path):
        tree(tmp_path, "far/deep/a.png", "data/b.png")
        (tmp_path / "data" / "site").symlink_to(tmp_path / "far")
        assert names_of(image_files(tmp_path / "data"), tmp_path / "data") == ["b.png", "site/deep/a.png"]

    @pytest.mark.parametrize("target", [".", "a", ".."])
    def test_a_link_to_what_is_already_visited_adds_nothing(self, tmp_path, target):
        root = tmp_path / "data"
        tree(root, "a/b.png", "c.png")
        (root / "0loop").symlink_to(root / target)
        assert names_of(image_files(root), root) == ["a/b.png", "c.png"]

    def test_a_broken_link_is_reported_as_a_file(self, tmp_path):
        (tmp_path / "gone.png").symlink_to("/nowhere.png")
        assert names_of(image_files(tmp_path), tmp_path) == ["gone.png"]

    def test_a_link_that_leads_to_itself_is_reported_as_a_file(self, tmp_path):
        tree(tmp_path, "a.png")
        for name in ("loop", "loop.png"):
            (tmp_path / name).symlink_to(name)
        assert names_of(image_files(tmp_path), tmp_path) == ["a.png", "loop.png"]
        with pytest.raises(ContsegError, match=r"loop\.png: "):
            read_image(tmp_path / "loop.png")

    def test_a_folder_that_is_not_there_is_one_line(self, tmp_path):
        with pytest.raises(ContsegError, match="gone: cannot be listed"):
            image_files(tmp_path / "gone")


def test_ids_beyond_the_colours_of_a_palette_are_kept(tmp_path):
    ids = np.array([[0, 3, 255]], np.uint8)
    write_palette_png(tmp_path / "mask.png", ids, [(9, 9, 9)] * 4)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), ids)
