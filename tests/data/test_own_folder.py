"""What users put into a dataset folder is found and read, or the message says what was found."""

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contseg.data.datasets.ade20k import ADE20K
from contseg.data.datasets.class_list import read_class_list
from contseg.data.datasets.division import held_out
from contseg.data.datasets.folder import Folder
from contseg.data.datasets.voc import VOC
from contseg.data.lists import read_names
from contseg.data.open import open_dataset
from contseg.data.presence import build_presence
from contseg.errors import ContsegError
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import Scenario
from tests.trees.official import ade20k
from tests.trees.voc import voc_official

PALETTE = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [0, 0, 200]], np.uint8)
COLOURS = "".join(f"- {{id: {n}, name: c{n}, colour: {colour.tolist()}}}\n" for n, colour in enumerate(PALETTE))
COLOURS = COLOURS.replace("c0", "background")


def all_names(dataset) -> list[str]:
    return sorted(dataset.names("train") + dataset.names("test"))


def mask_of(root: Path, name: str = "000") -> np.ndarray:
    return np.asarray(Image.open(root / "masks" / f"{name}.png"))


def without_lists(root: Path) -> Path:
    for name in ("train.txt", "test.txt"):
        (root / name).unlink()
    return root


def rewrite_masks(root: Path, save) -> None:
    """Replace every mask by what `save(mask, folder, name)` writes."""
    for path in sorted((root / "masks").glob("*.png")):
        mask = np.asarray(Image.open(path)).copy()
        path.unlink()
        save(mask, root / "masks", path.stem)


class TestFiles:
    def test_linked_folders_are_followed(self, folder, tmp_path):
        without_lists(folder)
        for part in ("images", "masks"):
            (tmp_path / "far" / part).mkdir(parents=True)
            for number in range(4):
                shutil.move(folder / part / f"00{number}.png", tmp_path / "far" / part)
            (folder / part / "site2").symlink_to(tmp_path / "far" / part)
            (tmp_path / "far" / part / "loop").symlink_to(folder / part)
        dataset = Folder(folder)
        assert all_names(dataset) == ["004", "005", "006", "007", *(f"site2/00{number}" for number in range(4))]
        assert build_presence(dataset, "train").pixels.sum() > 0

    def test_two_links_of_the_masks_to_one_folder_serve_both(self, folder):
        without_lists(folder)
        (folder / "masks").rename(folder / "one")
        (folder / "masks").mkdir()
        (folder / "images").rename(folder / "train")
        (folder / "images").mkdir()
        (folder / "train").rename(folder / "images" / "train")
        shutil.copytree(folder / "images" / "train", folder / "images" / "val")
        for part in ("train", "val"):
            (folder / "masks" / part).symlink_to(folder / "one")
        dataset = Folder(folder)
        for name in all_names(dataset):
            assert dataset.mask_path(name) == folder / "masks" / f"{name}.png"
            dataset.read(name)

    def test_hidden_files_and_folders_named_like_images_are_no_images(self, folder):
        without_lists(folder)
        before = all_names(Folder(folder))
        for name in ("._000.png", ".ipynb_checkpoints/000-checkpoint.png", "notes.png/readme.txt", ".DS_Store"):
            for part in ("images", "masks"):
                (folder / part / name).parent.mkdir(exist_ok=True)
                (folder / part / name).write_text("x")
        assert all_names(Folder(folder)) == before

    @pytest.mark.parametrize(("image", "mask"), [("NFC", "NFD"), ("NFD", "NFC")])
    def test_names_match_however_accents_are_stored(self, folder, image, mask):
        name = "caf\u00e9"
        for part, form in (("images", image), ("masks", mask)):
            (folder / part / "000.png").rename(folder / part / f"{unicodedata.normalize(form, name)}.png")
        (folder / "train.txt").write_text(f"{unicodedata.normalize(mask, name)}\n001\n", encoding="utf-8")
        dataset = Folder(folder)
        assert dataset.names("train") == [name, "001"]
        assert dataset.read(name)[1].shape == (32, 32)

    def test_names_keep_what_follows_their_dots(self, folder):
        for number, name in enumerate(("a.b", "a.b.c", "\u00fc ber.x")):
            for part in ("images", "masks"):
                (folder / part / f"00{number}.png").rename(folder / part / f"{name}.png")
        (folder / "train.txt").write_text("a.b\na.b.c.png\n\u00fc ber.x\n", encoding="utf-8")
        assert Folder(folder).names("train") == ["a.b", "a.b.c", "\u00fc ber.x"]

    @pytest.mark.parametrize("count", [2, 3, 6, 30])
    def test_without_a_division_both_subsets_have_images(self, count):
        names = [f"img {number}" for number in range(count)]
        held = held_out(names)
        assert 1 <= len(held) < count
        assert held_out(names[::-1]) == held

    def test_no_image_is_in_a_folder_of_something_else(self, tmp_path):
        (tmp_path / "annotations").mkdir()
        (tmp_path / "annotations" / "instances.json").write_text("{}")
        with pytest.raises(
            ContsegError, match=r"images: folder not found; .* JSON files of COCO or labelme; found annotations/"
        ):
            Folder(tmp_path)


WRITERS = {
    "tif": lambda mask, at, name: Image.fromarray(mask).save(at / f"{name}.tif"),
    "bmp": lambda mask, at, name: Image.fromarray(mask).save(at / f"{name}.bmp"),
    "upper case": lambda mask, at, name: Image.fromarray(mask).save(at / f"{name}.PNG", format="PNG"),
    "gif": lambda mask, at, name: Image.fromarray(mask).save(at / f"{name}_mask.gif"),
    "suffix": lambda mask, at, name: Image.fromarray(mask).save(at / f"{name}_mask.png"),
    "image file": lambda mask, at, name: Image.fromarray(mask).save(at / f"{name}.png.png"),
    "equal channels": lambda mask, at, name: Image.fromarray(np.dstack([mask] * 3)).save(at / f"{name}.png"),
    "opaque": lambda mask, at, name: Image.fromarray(np.dstack([mask] * 3 + [mask * 0 + 255])).save(at / f"{name}.png"),
    "grey and opaque": lambda mask, at, name: Image.fromarray(np.dstack([mask, mask * 0 + 255])).save(at / f"{name}.png"),
}


class TestMasks:
    @pytest.mark.parametrize("kind", WRITERS)
    def test_ids_are_read_whatever_their_file_is_called_and_stores(self, folder, kind):
        before = mask_of(folder)
        rewrite_masks(folder, WRITERS[kind])
        dataset = Folder(folder)
        assert np.array_equal(dataset.read("000")[1], before)
        assert build_presence(dataset, "train").pixels.sum() == 6 * 32 * 32

    def test_the_mask_of_another_image_is_never_taken_by_its_suffix(self, folder):
        (folder / "images" / "001.png").rename(folder / "images" / "000_mask.png")
        (folder / "masks" / "001.png").rename(folder / "masks" / "000_mask.png")
        (folder / "masks" / "000.png").unlink()
        (folder / "train.txt").write_text("000\n000_mask\n")
        dataset = Folder(folder)
        assert dataset.read("000_mask")
        with pytest.raises(ContsegError, match=r"masks/000\.png: mask not found; .*found 000_mask\.png"):
            dataset.read("000")

    @pytest.mark.parametrize("how", ["read", "presence"])
    def test_a_missing_mask_is_told_with_what_lies_beside(self, folder, how):
        (folder / "masks" / "000.png").rename(folder / "masks" / "000_seg.png")
        dataset = Folder(folder)
        with pytest.raises(ContsegError, match=r"masks/000\.png: mask not found; .* found 000_seg\.png$"):
            dataset.read("000") if how == "read" else build_presence(dataset, "train")

    def test_masks_in_another_place_are_counted(self, folder):
        for path in (folder / "masks").iterdir():
            path.rename(path.with_name(f"label of {path.stem}.txt"))
        with pytest.raises(ContsegError, match=r"masks/ has 8 other files, such as label of 000\.txt$"):
            Folder(folder).read("000")

    def test_a_jpeg_is_no_mask(self, folder):
        rewrite_masks(folder, lambda mask, at, name: Image.fromarray(mask).save(at / f"{name}.jpg"))
        with pytest.raises(ContsegError, match=r"masks/000\.jpg: mask is a JPEG"):
            Folder(folder).read("000")

    def test_transparency_that_differs_is_refused(self, folder):
        alpha = np.arange(1024, dtype=np.uint16).reshape(32, 32).astype(np.uint8)
        rewrite_masks(
            folder, lambda mask, at, name: Image.fromarray(np.dstack([mask] * 3 + [alpha])).save(at / f"{name}.png")
        )
        with pytest.raises(ContsegError, match=r"masks/000\.png: mask has mode RGBA with varying transparency"):
            Folder(folder).read("000")


class TestColours:
    @pytest.fixture
    def coloured(self, folder):
        rewrite_masks(folder, lambda mask, at, name: Image.fromarray(PALETTE[mask]).save(at / f"{name}.png"))
        (folder / "classes.txt").unlink()
        (folder / "classes.yaml").write_text(COLOURS)
        return folder

    def test_colours_that_the_class_list_names_are_decoded(self, coloured):
        dataset = Folder(coloured)
        assert np.array_equal(PALETTE[dataset.read("000")[1]], np.asarray(Image.open(coloured / "masks" / "000.png")))
        assert build_presence(dataset, "train").pixels[:, 1:].sum() > 0

    def test_ids_above_255_have_colours_too(self, coloured):
        (coloured / "classes.yaml").write_text(COLOURS.replace("id: 3", "id: 300"))
        found = [Folder(coloured).read(f"00{number}")[1] for number in range(8)]
        assert {int(number) for mask in found for number in np.unique(mask)} == {0, 1, 2, 300}

    def test_an_unknown_colour_is_told_with_its_file_and_pixels(self, coloured):
        pixels = np.asarray(Image.open(coloured / "masks" / "000.png")).copy()
        pixels[3, :5] = (9, 8, 7)
        Image.fromarray(pixels).save(coloured / "masks" / "000.png")
        message = r"masks/000\.png: mask has colours of no class: \[9, 8, 7\] \(5 pixels\)"
        with pytest.raises(ContsegError, match=message):
            Folder(coloured).read("000")

    def test_without_named_colours_the_message_says_how_to_name_them(self, coloured):
        (coloured / "classes.yaml").write_text("{0: background, 1: red, 2: green, 3: blue}")
        with pytest.raises(ContsegError, match=r"mask has mode RGB with the colours .* classes\.yaml must list the colour"):
            Folder(coloured).read("000")

    def test_numbers_in_three_channels_stay_numbers_beside_named_colours(self, folder):
        rewrite_masks(folder, lambda mask, at, name: Image.fromarray(np.dstack([mask] * 3)).save(at / f"{name}.png"))
        (folder / "classes.yaml").write_text(COLOURS)
        assert Folder(folder).read("000")[1].max() in (1, 2, 3)

    def test_two_classes_of_one_colour_are_refused(self, coloured):
        (coloured / "classes.yaml").write_text(COLOURS.replace("[0, 0, 200]", "[128, 0, 0]"))
        with pytest.raises(ContsegError, match=r"classes\.yaml: the colour \[128, 0, 0\] is used by id 1 and by id 3"):
            Folder(coloured)

    @pytest.mark.parametrize("palette", [False, True])
    def test_masks_as_cvat_exports_them_are_read(self, folder, palette):
        def save(mask, at, name):
            image = Image.fromarray(PALETTE[mask])
            (image.quantize(4, dither=0) if palette else image).save(at / f"{name}.png")

        before = mask_of(folder)
        rewrite_masks(folder, save)
        without_lists(folder)
        (folder / "images").rename(folder / "JPEGImages")
        (folder / "masks").rename(folder / "SegmentationClass")
        (folder / "classes.txt").unlink()
        lines = [
            "# label:color_rgb:parts:actions",
            "red:128,0,0::",
            "background:0,0,0::",
            "green:0,128,0::",
            "blue:0,0,200::",
        ]
        (folder / "labelmap.txt").write_text("\n".join(lines) + "\n")
        dataset = Folder(folder)
        assert dataset.classes.names == ("background", "red", "green", "blue")
        assert np.array_equal(dataset.read("000")[1], before)
        assert all_names(dataset) == [f"00{number}" for number in range(8)]
        assert dataset.names("test")
        (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
        for subset, listed in (("train", "000\n001\n"), ("val", "002\n")):
            (folder / "ImageSets" / "Segmentation" / f"{subset}.txt").write_text(listed)
        assert (dataset.names("train"), dataset.names("test")) == (["000", "001"], ["002"])

    @pytest.mark.parametrize("listed", ["classes.yaml", "labelmap.txt"])
    def test_black_has_no_label_where_no_class_is_a_background(self, coloured, listed):
        (coloured / "classes.yaml").unlink()
        rows = [(number, f"c{number}", PALETTE[number].tolist()) for number in (1, 2, 3)]
        lines = [f"- {{id: {number}, name: {name}, colour: {colour}}}" for number, name, colour in rows]
        if listed == "labelmap.txt":
            lines = [f"{name}:{','.join(map(str, colour))}::" for _, name, colour in rows]
        (coloured / listed).write_text("\n".join(lines))
        dataset = Folder(coloured)
        assert (dataset.classes.background, dataset.classes.ids) == ("unscored", (0, 1, 2, 3))
        assert np.array_equal(PALETTE[dataset.read("000")[1]], np.asarray(Image.open(coloured / "masks" / "000.png")))

    def test_masks_as_labelme2voc_writes_them_are_read(self, folder):
        without_lists(folder)
        (folder / "masks").rename(folder / "SegmentationClass")
        (folder / "classes.txt").rename(folder / "class_names.txt")
        dataset = Folder(folder)
        assert dataset.classes.names == ("background", "red", "green", "blue")
        assert all_names(dataset) == [f"00{number}" for number in range(8)]


class TestBackground:
    @pytest.fixture
    def roads(self, folder):
        (folder / "classes.txt").write_text("road\nred\ngreen\nblue\n")
        return folder

    def test_a_class_is_never_taken_for_background_without_a_word(self, roads):
        with pytest.raises(ContsegError, match=r"classes\.txt: id 0 is 'road', .*data\.options\.background=none"):
            Folder(roads)

    @pytest.mark.parametrize("name", ["background", "Background", "_background_", "BG"])
    def test_the_usual_names_of_a_background_are_known(self, folder, name):
        (folder / "classes.txt").write_text(f"{name}\nred\ngreen\nblue\n")
        assert Folder(folder).classes.background == "annotated"

    @pytest.mark.parametrize("name", ["unlabelled", "unlabeled", "void", "_ignore_"])
    def test_a_background_called_unlabelled_is_not_scored(self, folder, name):
        (folder / "classes.txt").write_text(f"{name}\nred\ngreen\nblue\n")
        assert Folder(folder).classes.background == "unscored"
        assert Folder(folder, background="annotated").classes.background == "annotated"

    @pytest.mark.parametrize("value", ["annotated", True, "Annotated"])
    def test_it_can_be_said_that_another_name_is_the_background(self, roads, value):
        classes = Folder(roads, background=value).classes
        assert (classes.names[0], classes.background, classes.ids) == ("road", "annotated", (0, 1, 2, 3))

    @pytest.mark.parametrize("value", ["none", False])
    def test_without_background_every_class_counts(self, roads, value):
        dataset = open_dataset("folder", roads, background=value)
        raw = mask_of(roads)
        assert np.array_equal(dataset.read("000")[1], raw + 1)
        assert (dataset.classes.names[0], dataset.classes.ids, dataset.classes.background) == ("road", (1, 2, 3, 4), "none")
        (offline,) = Scenario(dataset, ScenarioOptions(split="offline"))
        assert offline.table.names == ("road", "red", "green", "blue")
        assert np.array_equal(offline.test.lookup[dataset.read("000")[1]], raw)

    def test_steps_by_class_add_a_background_that_is_never_scored(self, roads):
        scenario = Scenario(Folder(roads, background="none"), ScenarioOptions(split="2-1-1"))
        last = scenario[-1]
        assert scenario[0].table.names == ("background", "road", "red")
        assert scenario.groups == (0, 0, 0, 1, 2)
        assert last.train.lookup[[1, 2, 3, 4, 255]].tolist() == [0, 0, 0, 4, 255]
        assert last.test.lookup[[1, 2, 3, 4, 255]].tolist() == [1, 2, 3, 4, 255]
        assert scenario[0].test.lookup[[1, 2, 3, 4]].tolist() == [1, 2, 255, 255]
        assert last.train.annotated.tolist() == [False, False, False, False, True]

    def test_ids_without_a_zero_stay_as_they_are(self, folder):
        for path in (folder / "masks").iterdir():
            Image.fromarray(np.asarray(Image.open(path)) + 1).save(path)
        (folder / "classes.txt").unlink()
        (folder / "classes.yaml").write_text("{1: road, 2: red, 3: green, 4: blue}")
        assert Folder(folder, background="none").classes.ids == (1, 2, 3, 4)
        for choice in (None, "unlabelled"):
            table = Folder(folder, background=choice).classes
            assert (table.names[0], table.background) == ("background", "unscored")

    def test_unknown_values_are_told_as_the_mask_has_them(self, roads):
        mask = mask_of(roads).copy()
        mask[0, :3], mask[1, :2] = 4, 255
        Image.fromarray(mask).save(roads / "masks" / "000.png")
        with pytest.raises(ContsegError, match=r"masks/000\.png: unknown values: 4 \(3 pixels\);"):
            Folder(roads, background="none").read("000")

    def test_id_254_does_not_become_the_ignored_value(self, tmp_path, folder):
        (folder / "classes.txt").unlink()
        (folder / "classes.yaml").write_text("{0: road, 1: red, 2: green, 3: blue, 254: gold}")
        assert Folder(folder, background="none").classes.ids == (1, 2, 3, 4, 256)

    @pytest.mark.parametrize("policy", ["mib", "plop", "ssul"])
    def test_unlabelled_pixels_hide_in_training_and_are_never_scored(self, folder, policy):
        dataset = Folder(folder, background="unlabelled")
        for step in Scenario(dataset, ScenarioOptions(split="1-1-1", policy=policy)):
            first = 1 if step.has_unknown else 0
            assert step.train.lookup[0] == 0
            assert step.test.lookup[0] == 255
            assert not step.train.annotated[: first + 1].any()

    def test_annotated_background_stays_scored(self, folder):
        for step in Scenario(Folder(folder), ScenarioOptions(split="1-1-1")):
            assert step.test.lookup[0] == 0

    def test_another_word_is_refused(self, folder):
        with pytest.raises(ContsegError, match=r"data\.options\.background: 'no' is unknown; known: annotated"):
            open_dataset("folder", folder, background="no")
        with pytest.raises(ContsegError, match=r"data\.options\.background: 'none' is neither true nor false"):
            open_dataset("ade20k", folder, background="none")


class TestLists:
    def test_official_lists_keep_what_follows_a_dot(self, tmp_path):
        voc_official(tmp_path / "voc")
        (root,) = {path.parent.parent.parent for path in (tmp_path / "voc").rglob("ImageSets/Segmentation/val.txt")}
        (root / "ImageSets" / "Segmentation" / "val.txt").write_text(
            "a.b\na.b.c\nmy photo\n/JPEGImages/x.y.jpg /SegmentationClassAug/x.y.png\nd.JPG\n"
        )
        assert VOC(root).names("test") == ["a.b", "a.b.c", "my photo", "x.y", "d"]
        ade = ade20k(tmp_path / "ade").root
        (ade / "validation.txt").write_text("a.b\na.b.c\nd.jpg\n")
        assert ADE20K(ade).names("test") == ["a.b", "a.b.c", "d"]

    def test_of_columns_the_first_is_the_name_where_only_that_is_there(self, tmp_path):
        (tmp_path / "list.txt").write_text("2007_000032 -1\na.b.jpg 0 3\nmy photo\nno such\n")
        names = read_names(tmp_path / "list.txt", {"2007_000032", "a.b", "my photo", "my"}.__contains__)
        assert names == ["2007_000032", "a.b", "my photo", "no such"]

    def test_two_paths_without_endings_are_one_name(self, tmp_path):
        (tmp_path / "list.txt").write_text("images/a.b masks/a.b\nimages\\\\c.png\n")
        assert read_names(tmp_path / "list.txt") == ["a.b", "c"]

    def test_hidden_files_are_no_images_of_an_official_layout(self, tmp_path):
        dataset = ade20k(tmp_path)
        before = dataset.names("train")
        (dataset.root / "images" / "training" / "._ADE_train_00000001.jpg").write_text("x")
        (dataset.root / "training.txt").unlink(missing_ok=True)
        assert ADE20K(dataset.root).names("train") == sorted(before)

    def test_an_image_that_a_list_names_three_times_counts_once(self, folder):
        once = build_presence(Folder(folder), "test")
        (folder / "test.txt").write_text("006\n007\n006\n006.png\n")
        assert build_presence(Folder(folder), "test").names == once.names == ("006", "007")
        (step,) = Scenario(Folder(folder), ScenarioOptions())
        assert step.test.names == ("006", "007")


def test_class_lists_are_read_with_either_spelling_of_colour(tmp_path):
    (tmp_path / "classes.yaml").write_text("- {id: 0, name: bg, color: [1, 2, 3]}\n")
    assert read_class_list(tmp_path).colours == {(1, 2, 3): 0}
