"""Scenes of handwritten digits, small enough for training on a laptop: the dataset of the demo."""

from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from contseg.atomic import atomic_folder
from contseg.data.cache import made_folder
from contseg.data.classes import ClassTable
from contseg.data.datasets.folder import Folder
from contseg.data.files import write_palette_png
from contseg.errors import ContsegError
from contseg.options import Seed, Several, checked

NAMES = ("background", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = (
    (0, 0, 0), (230, 75, 60), (60, 180, 75), (255, 200, 40), (70, 120, 230), (245, 130, 48),
    (150, 70, 190), (70, 220, 235), (235, 60, 220), (170, 230, 90), (250, 170, 190),
)  # fmt: skip
SceneSide = Annotated[int, Field(ge=16, le=4096)]
RECIPE_VERSION = 4  # incremented when the scenes change, so that older cached copies are not used


class Digits(Folder):
    """Handwritten digits (scikit-learn's 1797 images of 8x8 pixels) scattered over procedural texture.

    Each scene contains 1 to 3 digits of random scale, position and colour; the mask marks their ink, digit d as id d + 1.
    Digit images are divided before composing: those of test scenes never occur in training scenes. The scenes depend on
    the arguments only, are generated once and cached in the layout of `Folder`.

    Args:
        root: folder for the scenes; default: the cache folder.
        train, test: numbers of scenes.
        size: height and width in pixels, 16 to 4096.
        seed: random seed.

    Raises:
        ContsegError: a number is out of range, or scikit-learn is not installed (extra `demo`).

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998.
    """

    name = "digits"
    classes = ClassTable(NAMES, tuple(range(11)), COLOURS)
    needs_folder = False

    def __init__(self, root: Path | str | None = None, *, train: int = 800, test: int = 200, size: int = 96, seed: int = 0):
        for key, kind, value in (
            ("train", Several, train),
            ("test", Several, test),
            ("size", SceneSide, size),
            ("seed", Seed, seed),
        ):
            checked(f"data.options.{key}", kind, value)
        label = f"digits-v{RECIPE_VERSION}-{train}-{test}-{size}-{seed}"

        def make(folder: Path) -> None:
            _generate(folder, {"train": train, "test": test}, size, seed)

        folder, note = made_folder("datasets", label, make, root)
        super().__init__(folder)
        self.notes = (*self.notes, *([note] if note else []))
        self.classes = Digits.classes  # with the colours of the demo


def _generate(folder: Path, counts: dict[str, int], size: int, seed: int) -> None:
    divided = _divided_digits(seed)
    with atomic_folder(folder, shared=True) as partial:
        for part, (subset, count) in enumerate(counts.items()):
            pictures, targets = divided[part]
            (partial / "images" / subset).mkdir(parents=True)
            (partial / "masks" / subset).mkdir(parents=True)
            for number in range(count):
                rng = np.random.default_rng([seed, part, number])
                image, mask = compose_scene(pictures, targets, size, rng)
                Image.fromarray(image).save(partial / "images" / subset / f"{number:04d}.png")
                write_palette_png(partial / "masks" / subset / f"{number:04d}.png", mask, list(COLOURS))
        (partial / "classes.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")


def _divided_digits(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Digit images and their values for (train, test): three quarters of each digit, and the rest."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ContsegError("dataset digits: scikit-learn is missing; install the extra: contseg[demo]") from None
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    pictures, targets = digits.images[order], digits.target[order]
    rank = np.zeros(len(targets), dtype=int)
    for digit in range(10):
        rank[targets == digit] = np.arange((targets == digit).sum())
    share = np.array([(targets == digit).sum() for digit in range(10)])[targets] * 3 // 4
    train = rank < share
    return [(pictures[train], targets[train]), (pictures[~train], targets[~train])]


def compose_scene(
    pictures: np.ndarray, targets: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One scene: image (size, size, 3) uint8 and mask (size, size) uint8 with id = digit + 1.

    Args:
        pictures: digit images (n, 8, 8), ink 0 to 16.
        targets: their values 0-9, (n,).
    """
    image = _texture(size, rng)
    mask = np.zeros((size, size), dtype=np.uint8)
    taken = np.zeros((size, size), dtype=bool)
    for _ in range(rng.integers(1, 4)):
        which = rng.integers(len(targets))
        side = int(rng.integers(size * 2 // 5, size * 2 // 3))
        ink = np.asarray(
            Image.fromarray((pictures[which] * 255 / 16).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        )
        place = _free_place(taken, side, rng)
        if place is None:
            continue
        rows, columns = slice(place[0], place[0] + side), slice(place[1], place[1] + side)
        taken[rows, columns] = True
        alpha = np.clip((ink / 255 - 0.25) / 0.3, 0, 1)[..., None]
        background = image[rows, columns].mean(axis=(0, 1))
        colour = np.where(background > 127, rng.uniform(0, 80, 3), rng.uniform(175, 255, 3))
        image[rows, columns] = alpha * colour + (1 - alpha) * image[rows, columns]
        mask[rows, columns][alpha[..., 0] > 0.5] = targets[which] + 1
    noisy = image + rng.normal(0, 6, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), mask


def _free_place(taken: np.ndarray, side: int, rng: np.random.Generator) -> tuple[int, int] | None:
    """A position at which a square of this side overlaps the taken area by less than a tenth; None after 20 tries."""
    for _ in range(20):
        top, left = rng.integers(0, len(taken) - side + 1, 2)
        if taken[top : top + side, left : left + side].mean() < 0.1:
            return int(top), int(left)
    return None


def _texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth coloured gratings, (size, size, 3) float 0-255, neither very dark nor very bright."""
    y, x = np.mgrid[0:size, 0:size] / size
    waves = np.zeros((size, size, 3))
    for _ in range(3):
        fy, fx = rng.uniform(-7, 7, 2)
        waves += rng.uniform(8, 22, 3) * np.sin(2 * np.pi * (fy * y + fx * x) + rng.uniform(0, 2 * np.pi))[..., None]
    dark = rng.random() < 0.5
    return np.clip((rng.uniform(40, 90, 3) if dark else rng.uniform(160, 215, 3)) + waves, 0, 255)
