"""Find the JSON files and images of a COCO export: the layouts of COCO, CVAT, Roboflow, Label Studio."""

from dataclasses import dataclass
from pathlib import Path

from contseg.data.dataset import SubsetName, require_folder
from contseg.data.listing import files_below
from contseg.errors import ContsegError

_ROBOFLOW = "_annotations.coco.json"
_JSONS: dict[SubsetName, tuple[str, ...]] = {
    "train": (
        "annotations/instances_train.json",
        "annotations/instances_train2017.json",
        "annotations/instances_Train.json",
        f"train/{_ROBOFLOW}",
    ),
    "test": (
        "annotations/instances_val.json",
        "annotations/instances_val2017.json",
        "annotations/instances_test.json",
        "annotations/instances_Validation.json",
        "annotations/instances_Test.json",
        f"test/{_ROBOFLOW}",
        f"valid/{_ROBOFLOW}",
    ),
}
_IMAGES: dict[SubsetName, tuple[str, ...]] = {
    "train": ("train", "train2017", "images/train", "images/train2017", "images/Train"),
    "test": (
        "val",
        "val2017",
        "images/val",
        "images/val2017",
        "test",
        "images/test",
        "valid",
        "images/Validation",
        "images/Test",
    ),
}


@dataclass(frozen=True)
class Places:
    """The files of a subset.

    Args:
        json: the JSON file; None if the other subset's file is divided.
        images: the folder of its `file_name`s.
    """

    json: Path | None
    images: Path


def find_places(
    root: Path, jsons: dict[SubsetName, str | None], folders: dict[SubsetName, str | None]
) -> tuple[dict[SubsetName, Places], tuple[str, ...]]:
    """The places of both subsets, and notes on the choice.

    Args:
        jsons, folders: set by options, relative to `root`.

    Raises:
        ContsegError: there is no JSON file for training, or no folder of images; the message lists what was found.
    """
    train, test = (_json(root, subset, jsons[subset]) for subset in ("train", "test"))
    notes: list[str] = []
    if train is None and test is None and not any(jsons.values()):
        train = _only_json(root)
    if train is None or (test is None and jsons["test"]):
        subset: SubsetName = "train" if train is None else "test"
        expected = root / (jsons[subset] or _JSONS[subset][0])
        raise ContsegError(f"{expected}: not found; options train_json and test_json name other files{_found(root)}")
    if test is None:
        if folders["test"]:
            raise ContsegError(f"{root / _JSONS['test'][0]}: not found, though test_images is given; set test_json too")
        images = _images(root, train, "train", folders["train"], alone=True)
        return {"train": Places(train, images), "test": Places(None, images)}, tuple(notes)
    unused = root / "valid" / _ROBOFLOW
    if test == root / "test" / _ROBOFLOW and unused.is_file():
        notes.append(f"valid/{_ROBOFLOW} is not used; data.options.test_json=valid/{_ROBOFLOW} tests on it")
    return {
        "train": Places(train, _images(root, train, "train", folders["train"])),
        "test": Places(test, _images(root, test, "test", folders["test"])),
    }, tuple(notes)


def _json(root: Path, subset: SubsetName, given: str | None) -> Path | None:
    return next((root / one for one in ([given] if given else _JSONS[subset]) if (root / one).is_file()), None)


def _only_json(root: Path) -> Path | None:
    """The JSON file of an export that is one file, such as annotations/instances_default.json or result.json."""
    for folder in (root / "annotations", root):
        found = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
        if len(found) == 1:
            return found[0]
    return None


def _images(root: Path, json: Path, subset: SubsetName, given: str | None, alone: bool = False) -> Path:
    """The folder of the images of a file."""
    hint = f"the {subset} images; data.options.{subset}_images names another folder"
    if given:
        return require_folder(root / given, hint)
    if json.name == _ROBOFLOW:
        return json.parent
    own = json.stem.removeprefix("instances_")
    choices = [*_IMAGES[subset], f"images/{own}", *(["images", "JPEGImages"] if alone else [])]
    found = next((root / one for one in choices if (root / one).is_dir()), None)
    if found is None and alone and json.parent == root:
        return root
    return found or require_folder(root / choices[0], hint)


def _found(root: Path) -> str:
    """The JSON files that were found, for an error."""
    jsons = [path.relative_to(root).as_posix() for path in files_below(root) if path.suffix == ".json"]
    if jsons:
        return f"; found {', '.join(jsons[:3])}" + (f" and {len(jsons) - 3} more" if len(jsons) > 3 else "")
    masks = any((root / folder).is_dir() for folder in ("masks", "SegmentationClass"))
    return "; found no JSON file" + ("; a folder of masks is read by data.dataset=folder" if masks else "")
