"""Small synthetic copies of published datasets in their official layouts, to try a recipe without its data."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from contseg.atomic import atomic_folder
from contseg.data.classes import IGNORE, ClassTable, voc_palette
from contseg.data.dataset import SubsetName
from contseg.data.datasets import ade20k, cityscapes, isprs, lip, pascal_context
from contseg.data.datasets.panoptic import ADE20KPanoptic, COCOPanoptic, PanopticDataset
from contseg.data.datasets.voc import VOC
from contseg.data.fake_panoptic import save_segments, write_json
from contseg.data.files import write_palette_png
from contseg.data.textures import draw_shapes
from contseg.errors import ContsegError, did_you_mean

SMALLEST = 32
"""Smallest side in pixels: shapes still have an interior inside their border."""

Places = list[tuple[Path, Path]]
"""Image and mask file of each sample of a subset."""


@dataclass(frozen=True)
class _Layout:
    """The layout of a dataset on disk.

    Args:
        values: the raw mask value of every class, in the order of the class table, the first for class 1.
        background: raw values of pixels that no shape covers, used in turn.
        places: writes the lists of a subset with this many samples (if the layout has lists) and returns its files.
        borders: whether objects have borders of 255.
        panoptic: the dataset, if its masks are PNGs of segments with a JSON file.
    """

    values: Sequence[int]
    background: Sequence[int]
    places: Callable[[Path, SubsetName, int], Places]
    borders: bool = False
    panoptic: type[PanopticDataset] | None = None


def write_fake(
    dataset: str, root: Path, *, train: int, test: int, size: tuple[int, int] = (96, 96), seed: int = 0, objects: int = 2
) -> Path:
    """Write a synthetic copy of a dataset in its official layout, which `open_dataset(dataset, root)` opens.

    Images show textured shapes, one texture per class (`class_texture`). The front shape of image i has class i mod K + 1
    of the K classes; the other shapes have random classes up to that one. With K images or more, every class thus has an
    image without later classes: in natural order, every step has images in every setting. Pixels that no shape covers are
    background, unlabelled or clutter, depending on the dataset. Images of ISPRS and Cityscapes alternate between domains,
    so that with enough images every domain contains every class. The folder is written atomically.

    Args:
        dataset: a name of `LAYOUTS`.
        root: the folder; must be empty or missing.
        train, test: numbers of images.
        size: height and width in pixels.
        seed: random seed; equal arguments give equal files.
        objects: shapes in an image.

    Returns:
        The folder.

    Raises:
        ContsegError: there is no such layout, a number is too small, or the folder is not empty.

    Example:
        >>> import tempfile
        >>> from contseg.data.open import open_dataset
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     voc = open_dataset("voc", write_fake("voc", Path(folder) / "VOC2012", train=20, test=5))
        ...     image, mask = voc.read(voc.names("train")[19])
        >>> image.shape, 20 in mask
        ((96, 96, 3), True)
    """
    if dataset not in LAYOUTS:
        raise ContsegError(f"no layout to write '{dataset}' in; {did_you_mean(dataset, LAYOUTS)}")
    if min(train, test, objects) < 1 or min(size) < SMALLEST:
        raise ContsegError(
            f"a copy of {dataset} with train={train}, test={test}, objects={objects}, size={size}:"
            f" give 1 or more of each, and {SMALLEST} or more pixels per side"
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ContsegError(f"{root}: not empty; choose an empty or a new folder")
    layout = LAYOUTS[dataset]
    subsets: tuple[tuple[SubsetName, int], ...] = (("train", train), ("test", test))
    with atomic_folder(root) as partial:
        for part, (subset, count) in enumerate(subsets):
            places, listed = layout.places(partial, subset, count), []
            for number, (image, mask) in enumerate(places):
                rng = np.random.default_rng([seed, part, number])
                pixels, classes, shapes = _sample(layout, number, size, objects, rng)
                if layout.panoptic is None:
                    _save(image, mask, pixels, _ids(layout, number, classes[shapes]))
                else:
                    listed.append(save_segments(layout.panoptic, (image, mask), pixels, classes, shapes, number))
            if layout.panoptic is not None:
                write_json(layout.panoptic, partial, subset, places, listed, size)
        if root.exists():
            root.rmdir()
    return root


def _sample(
    layout: _Layout, number: int, size: tuple[int, int], objects: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image of one sample, the class of each of its shapes after a 0, and the shape of each pixel (see `draw_shapes`)."""
    first = number % len(layout.values) + 1
    drawn = [first, *rng.integers(1, first + 1, objects - 1).tolist()]
    pixels, shapes = draw_shapes(drawn, size, rng)
    return pixels, np.array([0, *drawn]), shapes


def _ids(layout: _Layout, number: int, classes: np.ndarray) -> np.ndarray:
    """Raw mask of one sample from class numbers."""
    ids = np.array([layout.background[number % len(layout.background)], *layout.values], dtype=np.uint8)[classes]
    if layout.borders:
        ids[_borders(classes)] = IGNORE
    return ids


def _borders(classes: np.ndarray) -> np.ndarray:
    """The pixels on both sides of class boundaries."""
    found = np.zeros(classes.shape, dtype=bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        changes = classes[one] != classes[other]
        found[one] |= changes
        found[other] |= changes
    return found


def _save(image: Path, mask: Path, pixels: np.ndarray, ids: np.ndarray) -> None:
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(image, quality=95)
    if mask.suffix == ".mat":
        _write_matlab(mask, ids)
    else:
        write_palette_png(mask, ids, voc_palette())


def _write_matlab(path: Path, ids: np.ndarray) -> None:
    from scipy.io import savemat

    content = io.BytesIO()
    savemat(content, {"S": ids})
    # SciPy writes the time into the first 116 bytes (free text); equal arguments must give equal files.
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(116) + content.getvalue()[116:])


def _write_list(path: Path, names: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names) + "\n", encoding="utf-8")


def _voc(root: Path, subset: SubsetName, count: int) -> Places:
    names = [f"{2008 if subset == 'train' else 2007}_{number:06d}" for number in range(count)]
    _write_list(root / "ImageSets" / "Segmentation" / ("train_aug.txt" if subset == "train" else "val.txt"), names)
    return [(root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClassAug" / f"{name}.png") for name in names]


def _pascal_context(root: Path, subset: SubsetName, count: int) -> Places:
    names = [f"{2008 if subset == 'train' else 2010}_{number:06d}" for number in range(count)]
    _write_list(root / "ImageSets" / "SegmentationContext" / pascal_context.LISTS[subset], names)
    return [(root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClassContext" / f"{name}.png") for name in names]


def _ade20k(root: Path, subset: SubsetName, count: int) -> Places:
    folder = ade20k.FOLDERS[subset]
    names = [f"ADE_{'train' if subset == 'train' else 'val'}_{number + 1:08d}" for number in range(count)]
    return [(root / "images" / folder / f"{name}.jpg", root / "annotations" / folder / f"{name}.png") for name in names]


def _ade20k_panoptic(root: Path, subset: SubsetName, count: int) -> Places:
    masks = root / ADE20KPanoptic.files[subset].removesuffix(".json")
    return [(image, masks / mask.name) for image, mask in _ade20k(root, subset, count)]


def _coco_panoptic(root: Path, subset: SubsetName, count: int) -> Places:
    images, masks = root / COCOPanoptic.folders[subset], root / COCOPanoptic.files[subset].removesuffix(".json")
    names = [f"{2 * number + (subset == 'train'):012d}" for number in range(1, count + 1)]
    return [(images / f"{name}.jpg", masks / f"{name}.png") for name in names]


def _cityscapes(root: Path, subset: SubsetName, count: int) -> Places:
    folder = cityscapes.FOLDERS[subset]
    # The 18 training and 3 test cities alternate, over 19 classes, so that every city eventually gets every class.
    cities = cityscapes.CITIES[:-3] if subset == "train" else cityscapes.CITIES[-3:]
    places = []
    for number in range(count):
        city = cities[number % len(cities)]
        name = f"{folder}/{city}/{city}_{number:06d}_000019"
        image, mask = f"{name}{cityscapes.IMAGE}", f"{name}{cityscapes.LABEL}"
        places.append((root / "leftImg8bit" / image, root / "gtFine" / mask))
    return places


def _lip(root: Path, subset: SubsetName, count: int) -> Places:
    part = lip.PARTS[subset]
    names = [f"{part}_{number:06d}" for number in range(count)]
    _write_list(root / f"{part}_id.txt", names)
    folders = root / f"{part}_images", root / f"{part}_segmentations"
    return [(folders[0] / f"{name}.jpg", folders[1] / f"{name}.png") for name in names]


def _coco_stuff_10k(root: Path, subset: SubsetName, count: int) -> Places:
    try:
        import scipy.io  # noqa: F401

        suffix = ".mat"
    except ImportError:  # the same ids as PNG, as .mat files cannot be read without SciPy
        suffix = ".png"
    names = [f"COCO_{'train' if subset == 'train' else 'val'}2014_{number:012d}" for number in range(count)]
    _write_list(root / "imageLists" / f"{subset}.txt", names)
    return [(root / "images" / f"{name}.jpg", root / "annotations" / f"{name}{suffix}") for name in names]


def _isprs(root: Path, subset: SubsetName, count: int) -> Places:
    folder = "training" if subset == "train" else "validation"
    places = []
    for number in range(count):
        # Potsdam and Vaihingen alternate, over five classes, so that both domains eventually get every class.
        domain_from = isprs.VAIHINGEN_FROM if number % 2 else 1
        patch = domain_from + number // 2 + (0 if subset == "train" else 5000)
        places.append((root / "images" / folder / f"{patch:05d}.png", root / "annotations" / folder / f"{patch:05d}.png"))
    return places


def _official(name: str) -> Sequence[int]:
    return ClassTable.official(name, "annotated").foreground


LAYOUTS: dict[str, _Layout] = {
    "voc": _Layout(VOC.classes.foreground, (0,), _voc, borders=True),
    "ade20k": _Layout(_official("ade20k"), (0,), _ade20k),
    "ade20k-panoptic": _Layout(ADE20KPanoptic.classes.foreground, (0,), _ade20k_panoptic, panoptic=ADE20KPanoptic),
    "coco-panoptic": _Layout(COCOPanoptic.classes.foreground, (0,), _coco_panoptic, panoptic=COCOPanoptic),
    "cityscapes": _Layout(cityscapes.SCORED, (0, 1, 3, 4), _cityscapes),
    "lip": _Layout(_official("lip"), (0,), _lip),
    "coco-stuff-10k": _Layout(_official("coco_stuff"), (0,), _coco_stuff_10k),
    "pascal-context": _Layout(_official("pascal_context"), (0,), _pascal_context),
    "isprs": _Layout(range(isprs.CLUTTER), (isprs.CLUTTER,), _isprs),
}
"""Datasets with a synthetic version."""
