"""The section "Why" of a page: what `contseg explain` stored of a class, as pictures and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from contseg.errors import visible
from contseg.report import figures as draw
from contseg.report.explain import PICTURES, cosines
from contseg.report.figures import INK, Drawing, plain
from contseg.report.tables import html_colour

Arrays = Mapping[str, np.ndarray]
DRAWN = 400
"""Most regions that are drawn of a model, divided among the classes."""
NAMED = 24
"""With more classes, only the class in question is named in the drawing."""
DARK = 64
"""Colours without a channel above this are replaced by grey, as they are invisible on a dark page."""


def why(arrays: Arrays) -> dict[str, Any]:
    """The content of the section.

    Args:
        arrays: what `explained` returns, and `class`, `step`, `classes`, `colours`, `projection` and `images`, the number of
            test images.

    Returns:
        `name`, `step`, `has_before`, `known_before`, `images` (number), `projection`; `pictures`, data URIs `image`,
        `labelled`, `before` (None if the model does not know the class) and `after`; `points`, a drawing, and its `legend`;
        `rows`, see `similar_classes`; `sentences`, see `in_words`; `matrices`, title to `matrix`.
    """
    names = [visible(str(name)) for name in arrays["classes"]]
    place = [str(name) for name in arrays["classes"]].index(str(arrays["class"]))
    colours = on_any_page(arrays["colours"])
    there = np.flatnonzero(arrays["regions"])
    has_before = "means_before" in arrays
    after = arrays["means_after"][there]
    matrices = {"after the step": (after, after)}
    if has_before:
        matrices["before the step (rows) and after it (columns)"] = (arrays["means_before"][there], after)
    rows = similar_classes(arrays, names)
    return {
        "name": names[place],
        "step": int(arrays["step"]),
        "has_before": has_before,
        "known_before": "before0" in arrays,
        "images": int(arrays["images"]),
        "projection": str(arrays["projection"]),
        "pictures": [_picture(arrays, number, colours[place]) for number in range(PICTURES) if f"image{number}" in arrays],
        "points": draw_points(arrays, names, colours, place),
        "legend": [(names[number], html_colour(colours[number])) for number in there],
        "rows": rows,
        "sentences": in_words(rows, names[place], int(arrays["step"])),
        "matrices": {
            title: matrix(cosines(*means), [names[number] for number in there]) for title, means in matrices.items()
        },
    }


def on_any_page(colours: np.ndarray) -> np.ndarray:
    """Colours of classes, (K, 3) uint8, with grey in place of those that are invisible on a dark page.

    Example:
        >>> on_any_page(np.array([[0, 0, 0], [0, 0, 128]], np.uint8)).tolist()
        [[128, 128, 128], [0, 0, 128]]
    """
    return np.where(colours.max(axis=1, keepdims=True) <= DARK, np.uint8(128), colours)


def _picture(arrays: Arrays, number: int, colour: np.ndarray) -> dict[str, str | None]:
    image, labelled = arrays[f"image{number}"], arrays[f"labelled{number}"]
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    return {
        "image": draw.photo(image),
        "labelled": draw.photo(np.where(labelled[..., None], 0.35 * grey + 0.65 * colour, 0.6 * grey).astype(np.uint8)),
        **{
            when: draw.photo(heat(image, arrays[f"{when}{number}"])) if f"{when}{number}" in arrays else None
            for when in ("before", "after")
        },
    }


def heat(image: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """An activation map over a grey image, (H, W, 3) uint8; no activation is grey, the largest one yellow.

    Args:
        image: (H, W, 3) uint8.
        activation: (h, w) uint8.
    """
    size = image.shape[1], image.shape[0]
    values = np.asarray(Image.fromarray(activation).resize(size, Image.Resampling.BILINEAR)) / 255
    colours = 255 * matplotlib.colormaps["inferno"](0.25 + 0.75 * values)[..., :3]
    opacity = 0.95 * np.sqrt(values)[..., None]
    return ((1 - opacity) * 0.6 * image.mean(axis=2, keepdims=True) + opacity * colours).astype(np.uint8)


@matplotlib.rc_context(draw.ON_A_PAGE)
def draw_points(arrays: Arrays, names: Sequence[str], colours: np.ndarray, place: int) -> Drawing:
    """Regions in two dimensions: hollow before the step, filled after it, and an arrow between the means of a class."""
    points, labels, when = arrays["points"], arrays["labels"], arrays["when"]
    each = max(3, DRAWN // max(1, len(np.unique(labels))))
    figure, axis = plt.subplots(figsize=(8, 5))
    for number in sorted(np.unique(labels), key=lambda number: number == place):  # the class in question is drawn last
        colour, chosen = html_colour(colours[number]), number == place
        middles = []
        for time in np.unique(when):
            own = points[(labels == number) & (when == time)]
            face = colour if time else "none"
            edge = INK if chosen and time else colour
            size, opacity = (34, 0.95) if chosen else (14, 0.5)
            axis.scatter(
                own[:each, 0], own[:each, 1], s=size, facecolors=face, edgecolors=edge, linewidths=0.9, alpha=opacity
            )
            middles.append(own.mean(axis=0))
        if len(middles) == 2:
            axis.annotate(
                "", middles[1], middles[0], arrowprops={"arrowstyle": "->", "color": INK, "alpha": 0.9 if chosen else 0.4}
            )
        if chosen or len(names) <= NAMED:
            weight = "bold" if chosen else "normal"
            axis.annotate(plain(names[number]), middles[-1], (4, 4), textcoords="offset points", size=9, weight=weight)
    shares = arrays["shares"]
    titles = [f"component {number + 1}: {100 * share:.0f} % of the variance" for number, share in enumerate(shares)]
    axis.set_xlabel(titles[0] if titles else "t-SNE 1")
    axis.set_ylabel(titles[1] if titles else "t-SNE 2")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[["top", "right"]].set_visible(False)
    return draw.drawing(figure)


def similar_classes(arrays: Arrays, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row per class with regions: `name`, `regions` (number), `own`, the cosine of its means before and after the step,
    and `before` and `after`, the most similar other class then with its cosine. What there is none of is None.
    """
    after = cosines(arrays["means_after"], arrays["means_after"])
    before = own = None
    if "means_before" in arrays:
        before = cosines(arrays["means_before"], arrays["means_before"])
        own = np.diag(cosines(arrays["means_before"], arrays["means_after"]))
    return [
        {
            "name": names[number],
            "regions": int(arrays["regions"][number]),
            "own": None if own is None or np.isnan(own[number]) else float(own[number]),
            "before": None if before is None else _nearest(before, number, names),
            "after": _nearest(after, number, names),
        }
        for number in np.flatnonzero(arrays["regions"]).tolist()
    ]


def _nearest(similar_KK: np.ndarray, number: int, names: Sequence[str]) -> tuple[str, float] | None:
    row = similar_KK[number].copy()
    row[number] = np.nan
    if np.isnan(row).all():
        return None
    best = int(np.nanargmax(row))
    return names[best], float(row[best])


def matrix(similar_KK: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """A picture of cosines: `names`, `picture` (a pixel per cell), `low`, the value without colour; 1 has full colour."""
    low = float(np.nanmin(similar_KK)) if (~np.isnan(similar_KK)).any() else 0.0
    pixels = np.full((*similar_KK.shape, 4), (0, 114, 178, 0), dtype=np.uint8)
    pixels[..., 3] = (255 * np.nan_to_num((similar_KK - low) / max(1 - low, 1e-9)).clip(0, 1)).round()
    return {"names": list(names), "picture": draw.png_uri(pixels), "low": low}


def in_words(rows: Sequence[Mapping[str, Any]], name: str, step: int) -> list[str]:
    """The similarity of a class, in sentences.

    Args:
        rows: of `similar_classes`.
    """
    row = next((row for row in rows if row["name"] == name), None)
    if row is None:
        return [f"No test image that was read has a region of {name}."]
    texts = [
        f"{when.capitalize()} step {step}, {name} is most like {row[when][0]} (cosine {row[when][1]:.2f})."
        for when in ("before", "after")
        if row[when]
    ]
    if row["own"] is not None:
        texts.append(f"Cosine of its mean features before and after the step: {row['own']:.2f}.")
    return texts
