"""Cut official ISPRS tiles into numbered patches: in parallel, a few rows at a time, resumable after a kill."""

import json
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contseg.atomic import PARTIAL, atomic_file, write_text
from contseg.data.dataset import SubsetName
from contseg.data.datasets.isprs import CLASSES, MANIFEST, VAIHINGEN_FROM
from contseg.data.isprs.tiles import Domain, Numbered, Tile, raster_tools
from contseg.data.lists import read_text
from contseg.errors import ContsegError

Progress = Callable[[int, int], None]

_FOLDERS: dict[SubsetName, str] = {"train": "training", "test": "validation"}
_CODES = np.array([red << 16 | green << 8 | blue for red, green, blue in CLASSES.values()], dtype=np.int32)
_NO_CLASS = 255
_UNREADABLE = (TypeError, KeyError, ValueError)
_AT_ONCE = 50  # rows whose colours are converted together, as the wider integers take four times the memory


def cut_tiles(
    out: Path,
    domain: Domain,
    tiles: Sequence[Numbered],
    patch: int,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[ContsegError]:
    """Write the patches of these tiles below `out`, in the layout of `ISPRS`.

    Patches are written atomically, so that after a kill the existing ones are kept and only the others are cut.
    `prepared.json` records the parameters; a call with different ones is refused.

    Args:
        patch: height and width of the square patches, in pixels.
        workers: tiles in parallel, of 60 to 150 MB each; default: all cores, at most 4.
        overwrite: delete the patches of this domain first that `prepared.json` lists.
        progress: called with (done, total) as patches are written.

    Returns:
        One error for each tile that could not be cut; the others are complete.

    Raises:
        ContsegError: `out` contains patches of other parameters or unknown origin, or is not writable.
    """
    folders = [out / kind / folder for kind in ("images", "annotations") for folder in _FOLDERS.values()]
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(f"[0-9]*.png.*{PARTIAL}"):
                left.unlink()
        if overwrite:
            _delete(out, domain, folders)
        _announce(out, domain, tiles, patch, folders)
    except OSError as error:
        raise ContsegError(f"{out}: cannot be written to ({error})") from None

    total, done, lock = sum(len(one.windows(patch)) for one in tiles), 0, threading.Lock()
    stopped = threading.Event()

    def report(count: int) -> None:
        nonlocal done
        if stopped.is_set():
            raise ContsegError("stopped")
        with lock:
            done += count
            if progress:
                progress(done, total)

    def cut(one: Numbered) -> ContsegError | None:
        try:
            _cut_tile(out, one, patch, report)
        except ContsegError as error:
            return error
        return None

    with warnings.catch_warnings(), ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore", raster_tools().errors.NotGeoreferencedWarning)
        futures = [pool.submit(cut, one) for one in tiles]
        try:
            results = [future.result() for future in futures]
        except BaseException:  # Ctrl-C: running tiles stop at their next patch
            stopped.set()
            pool.shutdown(cancel_futures=True)
            raise
    errors = [result for result in results if result is not None]
    if not errors:
        _complete(out, domain)
    return errors


def _cut_tile(out: Path, one: Numbered, patch: int, report: Callable[[int], None]) -> None:
    """Write the missing patches of a tile."""
    tile = one.tile
    assert tile.image is not None
    assert tile.label is not None
    windows = one.windows(patch)
    wanted = [window for window in windows if not all(path.exists() for path in _paths(out, tile, window[0]))]
    report(len(windows) - len(wanted))
    if not wanted:
        return
    rasterio = raster_tools()
    with rasterio.Env(GDAL_CACHEMAX=64):
        ids = _label_ids(tile, patch)
        try:
            with rasterio.open(tile.image) as raster:
                for top in sorted({window[1] for window in wanted}):
                    rows = _read_rows(raster, top, patch)
                    for number, _, left in (window for window in wanted if window[1] == top):
                        image, label = _paths(out, tile, number)
                        _write(label, ids[top : top + patch, left : left + patch])
                        _write(image, rows[:, left : left + patch])
                        report(1)
        except rasterio.errors.RasterioError as error:
            raise ContsegError(f"{tile.image}: cannot be read ({' '.join(str(error).split())})") from None


def _read_rows(raster: Any, top: int, count: int) -> np.ndarray:
    """Rows of a raster over its whole width, (count, W, 3) uint8."""
    return np.moveaxis(raster.read((1, 2, 3), window=((top, top + count), (0, raster.width))), 0, -1)


def _label_ids(tile: Tile, rows: int) -> np.ndarray:
    """The label of a tile as class numbers, (H, W) uint8; its colours are never in memory as a whole.

    Raises:
        ContsegError: the label has colours of no class.
    """
    rasterio = raster_tools()
    strange: dict[int, int] = {}
    try:
        with rasterio.open(tile.label) as raster:
            ids = np.empty((raster.height, raster.width), dtype=np.uint8)
            for top in range(0, raster.height, rows):
                colours = _read_rows(raster, top, min(rows, raster.height - top))
                for first in range(0, len(colours), _AT_ONCE):
                    block = ids[top + first : top + first + _AT_ONCE][: len(colours) - first]
                    for code, count in _turn(colours[first : first + _AT_ONCE], block):
                        strange[code] = strange.get(code, 0) + count
    except rasterio.errors.RasterioError as error:
        raise ContsegError(f"{tile.label}: cannot be read ({' '.join(str(error).split())})") from None
    if strange:
        raise ContsegError(_told_colours(tile, strange))
    return ids


def _turn(colours: np.ndarray, ids: np.ndarray) -> list[tuple[int, int]]:
    """Write the class numbers of colours (H, W, 3) into `ids` (H, W); return unknown colours as (24-bit code, pixels)."""
    wide = colours.astype(np.int32)
    codes = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    ids[:] = _NO_CLASS
    for number, code in enumerate(_CODES):
        ids[codes == code] = number
    strange, pixels = np.unique(codes[ids == _NO_CLASS], return_counts=True)
    return list(zip(strange.tolist(), pixels.tolist(), strict=True))


def _told_colours(tile: Tile, strange: dict[int, int]) -> str:
    most = sorted(strange, key=lambda code: -strange[code])[:5]
    colours = ", ".join(f"({code >> 16}, {code >> 8 & 255}, {code & 255}) {strange[code]}x" for code in most)
    return (
        f"{tile.label}: tile {tile.name} has {sum(strange.values())} pixels in {len(strange)} colours of no class:"
        f" {colours}{' and others' if len(strange) > 5 else ''}; leave the tile out with --skip-tile {tile.name}"
    )


def _paths(out: Path, tile: Tile, number: int) -> tuple[Path, Path]:
    """The files of a patch: image and annotation."""
    folder, name = _FOLDERS[tile.subset], f"{number:05d}.png"
    return out / "images" / folder / name, out / "annotations" / folder / name


def _write(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG atomically."""
    try:
        with atomic_file(path, shared=True) as partial:
            Image.fromarray(np.ascontiguousarray(pixels)).save(partial, format="PNG", compress_level=3)
    except OSError as error:
        raise ContsegError(f"{path}: cannot be written ({error})") from None


def _patches(domain: Domain, folders: Sequence[Path]) -> list[Path]:
    """The files in these folders that are patches of this domain, by number."""
    numbered = [path for folder in folders for path in folder.glob("*.png") if path.stem.isdigit()]
    return sorted(path for path in numbered if (int(path.stem) >= VAIHINGEN_FROM) == (domain == "vaihingen"))


def _delete(out: Path, domain: Domain, folders: Sequence[Path]) -> None:
    """Delete the recorded patches of a domain; the record marks it as incomplete first, in case of an interruption.

    Raises:
        ContsegError: there are others, which this command did not write. Nothing is deleted then.
    """
    sections, there = _sections(out, forgiving=True), _patches(domain, folders)
    try:
        listed = {number for span in _spans(sections.get(domain, {"tiles": {}})).values() for number in span}
    except _UNREADABLE:
        listed = set()
    for path in there:
        if int(path.stem) not in listed:
            raise ContsegError(f"{path}: exists, and {MANIFEST} does not list it; move it, or choose another --out")
    if there:
        _save(out, {**sections, domain: {**sections[domain], "complete": False}})
    for path in there:
        path.unlink()
    _save(out, {name: section for name, section in sections.items() if name != domain})


def _spans(section: dict[str, Any]) -> dict[str, range]:
    """The numbers of the patches of each tile that a record lists."""
    return {name: range(tile["first"], tile["first"] + tile["patches"]) for name, tile in dict(section["tiles"]).items()}


def _announce(out: Path, domain: Domain, tiles: Sequence[Numbered], patch: int, folders: Sequence[Path]) -> None:
    """Record what will be cut, unless it conflicts with existing patches."""
    planned = {one.tile.name: {"first": one.first, "patches": len(one.windows(patch))} for one in tiles}
    sections = _sections(out)
    there = _patches(domain, folders)
    if domain in sections:
        try:
            old_patch, old_tiles = sections[domain]["patch"], dict(sections[domain]["tiles"])
            spans = _spans(sections[domain])
        except _UNREADABLE:
            raise ContsegError(f"{out / MANIFEST}: not written by this command; --overwrite cuts again") from None
        if old_patch != patch:
            raise ContsegError(f"{out}: was cut with --patch {old_patch}, not {patch}; --overwrite cuts again")
        for name, tile in old_tiles.items():
            if planned.get(name, tile) != tile:
                raise ContsegError(f"{out}: tile {name} had other numbers before; --overwrite cuts again")
            if name not in planned and any(int(path.stem) in spans[name] for path in there):
                raise ContsegError(f"{out}: contains patches of tile {name}, which is left out now; --overwrite cuts again")
    elif there:
        raise ContsegError(
            f"{there[0]}: exists, but there is no {MANIFEST} with its origin; move it, or choose another --out"
        )
    _save(out, {**sections, domain: {"patch": patch, "complete": False, "tiles": planned}})


def _complete(out: Path, domain: Domain) -> None:
    sections = _sections(out)
    _save(out, {**sections, domain: {**sections[domain], "complete": True}})


def _sections(out: Path, forgiving: bool = False) -> dict[str, dict[str, Any]]:
    """The record of each domain in `out`."""
    if not (out / MANIFEST).is_file():
        return {}
    try:
        content = json.loads(read_text(out / MANIFEST))
        if not isinstance(content, dict):
            raise ValueError("not an object")
    except (ContsegError, ValueError) as error:
        if forgiving:
            return {}
        raise ContsegError(f"{out / MANIFEST}: cannot be read ({error}); --overwrite cuts again") from None
    return content


def _save(out: Path, sections: dict[str, dict[str, Any]]) -> None:
    write_text(out / MANIFEST, json.dumps(sections, indent=1) + "\n", shared=True)
