"""Check one annotation of a COCO file, polygons or run lengths, and draw it."""

from typing import Any

import numpy as np

from contseg.errors import ContsegError


def mask_tools() -> Any:
    """The module `pycocotools.mask`.

    Raises:
        ContsegError: pycocotools is not installed (extra `coco`).
    """
    try:
        from pycocotools import mask
    except ImportError:
        raise ContsegError("dataset coco-json: pycocotools is missing; pip install contseg[coco]") from None
    return mask


def segment(segmentation: Any, height: int, width: int) -> np.ndarray:
    """The pixels of one annotation: (height, width) bool.

    Args:
        segmentation: a list of polygons `[x1, y1, x2, y2, ...]` in pixels, which are united; or run lengths
            `{"size": [height, width], "counts": ...}`, column by column, starting outside the object, as a list of numbers
            or in COCO's compressed text.

    Raises:
        ValueError: it is neither, or broken; the message has the reason.

    Example:
        >>> segment([[1, 0, 3, 0, 3, 2, 1, 2]], 2, 4).astype(int)
        array([[0, 1, 1, 0],
               [0, 1, 1, 0]])
        >>> segment({"size": [2, 3], "counts": [2, 3, 1]}, 2, 3).astype(int)
        array([[0, 1, 1],
               [0, 1, 0]])
    """
    tools = mask_tools()
    if isinstance(segmentation, list):
        if not segmentation:
            raise ValueError("has no polygon")
        polygons = [_polygon(points, height, width) for points in segmentation]
        runs = tools.merge(tools.frPyObjects(polygons, height, width))
    elif isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        if segmentation.get("size") != [height, width]:
            raise ValueError(f"run lengths of size {segmentation.get('size')} for an image of [{height}, {width}]")
        lengths = _decompressed(counts) if isinstance(counts, str) else _whole_numbers(counts)
        if (lengths < 0).any() or lengths.sum() != height * width:
            raise ValueError(
                f"broken run lengths: they must be 0 or more and add up to {height * width}, not {lengths.sum()}"
            )
        runs = tools.frPyObjects({"size": [height, width], "counts": lengths.tolist()}, height, width)
    else:
        raise ValueError("its segmentation is neither polygons nor run lengths")
    return tools.decode(runs).astype(bool)


def _polygon(points: Any, height: int, width: int) -> list[float]:
    """The polygon as floats.

    Raises:
        ValueError: the polygon is broken.
    """
    if not isinstance(points, list):
        raise ValueError("a polygon must be a list of numbers x1, y1, x2, y2, ...")
    if len(points) < 6 or len(points) % 2:
        raise ValueError(f"a polygon of {len(points)} numbers; it needs an even count of at least 6")
    try:
        values = np.array(points, dtype=float)
    except (TypeError, ValueError):
        raise ValueError("a polygon contains a value that is not a number") from None
    far = 2 * max(height, width)  # slightly outside is common, and is cut off
    if not (values.shape == (len(points),) and np.isfinite(values).all() and np.abs(values).max() <= far):
        raise ValueError(f"a polygon reaches far out of its image of {width}x{height}")
    return values.tolist()


def _whole_numbers(counts: Any) -> np.ndarray:
    try:
        lengths = np.array(counts)
    except ValueError:
        lengths = np.array(None)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise ValueError("broken run lengths: counts must be whole numbers or compressed text")
    return lengths


def _decompressed(text: str) -> np.ndarray:
    """Decode COCO's text: five bits per character, lowest first; later lengths are differences to the last but one.

    pycocotools is not used, as it reads past the end of a truncated text.
    """
    digits = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) - 48
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise ValueError("broken run lengths: the compressed text is truncated or contains other characters")
    last = digits & 32 == 0
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    spans = np.diff(np.append(starts, len(digits)))
    if spans.max() > 7:
        raise ValueError("broken run lengths: a number in the compressed text is too long")
    place = np.arange(len(digits)) - np.repeat(starts, spans)
    values = np.add.reduceat((digits & 31) << (5 * place), starts)
    values = np.where(digits[last] & 16, values - (np.int64(1) << (5 * spans)), values)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values
