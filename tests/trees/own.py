"""Folders of users' own data, and the demo's digits."""

from pathlib import Path

import numpy as np
from PIL import Image

from contseg.data.datasets.digits import Digits
from contseg.data.datasets.folder import Folder

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
