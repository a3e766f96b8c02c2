"""The pictures of a report as data URIs."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")  # works without a screen; must come before pyplot

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from contseg.errors import visible

# colour-blind safe (Okabe and Ito), with grey instead of black, which is invisible on dark pages
RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080")
DASHES = ("solid", "dashed", "dotted")
IGNORED = (225, 225, 225)
THUMBNAIL = 112

# a colour that is used for nothing else, so that it can be replaced in the finished drawing
INK, DARK_INK = "#1a1b1c", "#e3e4e6"
ON_A_PAGE: Any = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "font.size": 10,
}


@dataclass(frozen=True)
class Drawing:
    """A drawing with transparent background as two data URIs: dark ink for light pages, light ink for dark pages."""

    light: str
    dark: str


def plain(text: str) -> str:
    """A text for a picture, drawn literally and on one line: without formulas between dollars and escape codes.

    Example:
        >>> print(plain("$10 and $x^2$\\x1b[31m"))
        \\$10 and \\$x^2\\$\\x1b[31m
    """
    return visible(text).replace("\n", " ").replace("$", r"\$")


def run_style(position: int) -> dict[str, Any]:
    """Colour and dashes of the run at a position; unique for 21 runs."""
    return {
        "color": RUN_COLOURS[position % len(RUN_COLOURS)],
        "linestyle": DASHES[position // len(RUN_COLOURS) % len(DASHES)],
    }


def png_uri(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8 as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@matplotlib.rc_context({"svg.hashsalt": "contseg"})  # two reports of a run are equal
def drawing(figure: Figure) -> Drawing:
    """A figure as SVG for light and dark pages; the figure is closed."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return Drawing(light=_svg_uri(text), dark=_svg_uri(text.replace(INK, DARK_INK)))


def _svg_uri(text: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


CURVES = {"all": "all classes seen so far", "old": "classes of step 0", "new": "classes of later steps"}


@matplotlib.rc_context(ON_A_PAGE)
def curves(series: Sequence[Mapping[str, Sequence[float | None]]]) -> dict[str, Drawing]:
    """mIoU in percent against steps, a line per run: title to drawing, for all, old and new classes.

    Args:
        series: per run, in the order of `run_style`: "all", "old" and "new" to a value in [0, 1] per step, None if it was
            not measured. A run of one step is drawn as a horizontal line.
    """
    steps = max(len(values["all"]) for values in series)
    drawn = {}
    for key, title in CURVES.items():
        figure, axis = plt.subplots(figsize=(4.2, 3.0))
        for position, values in enumerate(series):
            points = [np.nan if value is None else 100 * value for value in values[key]]
            style = run_style(position)
            if len(points) == 1 and steps > 1:
                axis.axhline(points[0], linewidth=1.5, **style)
            else:
                axis.plot(range(len(points)), points, marker="o", markersize=4, **style)
        axis.set_xlabel("after step")
        axis.set_xticks(range(0, steps, 1 + (steps - 1) // 12))
        axis.set_ylim(0, 100)
        axis.set_ylabel("mIoU in %")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        drawn[title] = drawing(figure)
    return drawn


@matplotlib.rc_context(ON_A_PAGE)
def losses(series: Sequence[Sequence[tuple[int, float]]]) -> Drawing:
    """Training loss per epoch over all steps, a line per run.

    Args:
        series: per run, in the order of `run_style`: (step, loss) of each epoch.
    """
    figure, axis = plt.subplots(figsize=(9, 2.6))
    for position, values in enumerate(series):
        marker = "o" if len(values) <= 30 else None  # a line of one point is invisible
        axis.plot([loss for _, loss in values], linewidth=1.5, marker=marker, markersize=3, **run_style(position))
    longest = max(series, key=lambda values: len({step for step, _ in values}), default=[])
    for place in range(1, len(longest)):
        if longest[place][0] != longest[place - 1][0]:
            axis.axvline(place - 0.5, color="0.5", alpha=0.4, linewidth=1)
    axis.set_yscale("log")
    axis.set_xlabel("epoch (a line where a step begins)")
    axis.set_ylabel("training loss")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    return drawing(figure)


def thumbnail(image: np.ndarray) -> str:
    """An image, THUMBNAIL pixels high, as a data URI."""
    width = max(1, round(image.shape[1] * THUMBNAIL / image.shape[0]))
    return png_uri(np.asarray(Image.fromarray(image).resize((width, THUMBNAIL), Image.Resampling.BILINEAR)))


def coloured(ids: np.ndarray, colours: np.ndarray) -> str:
    """A label map in class colours, THUMBNAIL pixels high, as a data URI; ignored pixels are light grey."""
    palette = np.full((256, 3), IGNORED, dtype=np.uint8)
    palette[: len(colours)] = colours
    width = max(1, round(ids.shape[1] * THUMBNAIL / ids.shape[0]))
    return png_uri(palette[np.asarray(Image.fromarray(ids).resize((width, THUMBNAIL), Image.Resampling.NEAREST))])
