"""Folders of users' own data, and the demo's digits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contseg.data.datasets.digits import Digits
from contseg.data.datasets.folder import Folder
from contseg.data.datasets.labelme import Labelme

SIZE = (24, 30)


def write_folder(root: Path, names: list[str], ids: tuple[int, ...], classes: dict[str, str]) -> None:
    """A dataset folder with these samples, mask values and files."""
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        mask = rng.choice(ids, SIZE).astype(np.uint16 if max(ids) > 255 else np.uint8)
        for part, pixels in (("images", rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)), ("masks", mask)):
            path = root / part / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    for file, text in classes.items():
        (root / file).write_text(text)


def digits(root: Path) -> Digits:
    return Digits(root, train=4, test=3, size=32)


def folder_with_lists(root: Path) -> Folder:
    names = [f"street/{number:02d}" for number in range(7)]
    lists = {"train.txt": "\n".join(names[:4]), "test.txt": "\n".join(f"{name}.png" for name in names[4:])}
    write_folder(root, names, (0, 1, 2), {"classes.txt": "background\ncat\ndog\n", **lists})
    return Folder(root)


def folder_with_subfolders(root: Path) -> Folder:
    names = [f"train/{number}" for number in range(4)] + [f"val/{number}" for number in range(3)]
    write_folder(root, names, (0, 1, 2, 255), {"classes.txt": "background\ncat\ndog\n"})
    return Folder(root)


def folder_divided_by_hash(root: Path) -> Folder:
    names = [f"{letter}" for letter in "abcdefghijklmnopqrst"]
    write_folder(root, names, (0, 7), {"classes.yaml": "{0: background, 7: car}"})
    return Folder(root)


def folder_with_large_ids(root: Path) -> Folder:
    names = [f"train/{number}" for number in range(4)] + [f"test/{number}" for number in range(3)]
    table = "- {id: 300, name: car, colour: [1, 2, 3]}\n- {id: 0, name: background}\n"
    write_folder(root, names, (0, 300), {"classes.yaml": table})
    return Folder(root)


def shape(label: str, points: list[tuple[float, float]], kind: str = "polygon", **more: Any) -> dict[str, Any]:
    """A shape of labelme."""
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def write_labelme(path: Path, shapes: list[dict[str, Any]], image: str | None = None) -> None:
    """A JSON file of labelme, and its image next to it unless there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image is None:
        image = f"{path.stem}.png"
        Image.fromarray(np.full((*SIZE, 3), len(shapes), dtype=np.uint8)).save(path.parent / image)
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": "not read"}
    path.write_text(json.dumps({**content, "imageHeight": SIZE[0], "imageWidth": SIZE[1]}))


def labelme(root: Path) -> Labelme:
    for number in range(7):
        cat, dog = (shape(label, [(left, 2), (left + 8, 2), (left + 8, 9)]) for label, left in (("cat", 3), ("dog", 14)))
        write_labelme(root / ("train" if number < 4 else "valid") / f"{number}.json", [cat, dog])
    return Labelme(root)
