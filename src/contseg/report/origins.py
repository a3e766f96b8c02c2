"""Where the labels of later steps come from: given, from the old model, or ignored."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contseg.data.classes import IGNORE
from contseg.report import figures as draw

UNKNOWN = (140, 140, 140)
"""Colour of the output "unknown"."""
UNCHANGED = (255, 255, 255)
"""Colour of pixels whose given label is used."""


def label_origins(steps: Mapping[int, Mapping[str, np.ndarray]], colours: np.ndarray) -> list[dict[str, Any]]:
    """The pictures of some training images.

    Args:
        steps: step to what `keep_label_origins` wrote.
        colours: (K, 3) of the classes.

    Returns:
        `step` and `images`, of each image `name`, `image`, `given`, `final`, and `origin`, in which only replaced labels
        have their colours, as data URIs; `replaced` and `ignored`, the shares of its pixels whose label is from the old
        model, and that are not trained on.
    """
    return [{"step": step, "images": _images(arrays, colours)} for step, arrays in steps.items()]


def _images(arrays: Mapping[str, np.ndarray], colours: np.ndarray) -> Sequence[dict[str, Any]]:
    shown = np.concatenate([np.array([UNKNOWN], np.uint8), colours]) if arrays["unknown"] else colours
    marked = np.concatenate([shown, np.array([UNCHANGED], np.uint8)])
    images = []
    for number, name in enumerate(arrays["names"]):
        given, final = arrays[f"given{number}"], arrays[f"final{number}"]
        replaced = (given != final) & (final != IGNORE)
        origin = np.where(replaced | (final == IGNORE), final, len(shown)).astype(np.uint8)
        images.append(
            {
                "name": str(name),
                "image": draw.photo(arrays[f"image{number}"]),
                "given": draw.label_map(given, shown),
                "final": draw.label_map(final, shown),
                "origin": draw.label_map(origin, marked),
                "replaced": float(replaced.mean()),
                "ignored": float((final == IGNORE).mean()),
            }
        )
    return images
