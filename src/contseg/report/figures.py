"""The pictures of a report as data URIs."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")  # works without a screen; must come before pyplot

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from PIL import Image

from contseg.errors import visible

# colour-blind safe (Okabe and Ito), with grey instead of black, which is invisible on dark pages
RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080")
DASHES = ("solid", "dashed", "dotted")
IGNORED = (225, 225, 225)
SIDE = 320
"""Longest side of an image on the page."""

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
    """(H, W, 3) or (H, W, 4) uint8 as a data URI."""
    return _uri(Image.fromarray(pixels), "png", optimize=True)


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


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
    plain_numbers(axis.yaxis)
    axis.set_xlabel("epoch (a line where a step begins)")
    axis.set_ylabel("training loss")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    return drawing(figure)


class _PlainNumbers(LogFormatter):
    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis with 0.2, not with 2e-01 or 2 x 10^-1."""
    for formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        formatter(_PlainNumbers(labelOnlyBase=False, minor_thresholds=(2, 0.5)))


def photo(image: np.ndarray) -> str:
    """An image, at most `SIDE` pixels long, as a data URI."""
    return _uri(_fitted(Image.fromarray(image), Image.Resampling.BILINEAR), "jpeg", quality=88)


def grey(values: np.ndarray) -> str:
    """A map of values from 0 to 255 as a data URI."""
    return _uri(Image.fromarray(values), "jpeg", quality=75)


def label_map(ids: np.ndarray, colours: np.ndarray) -> str:
    """A label map in the colours of `palette`, at most `SIDE` pixels long, as a data URI."""
    image = Image.fromarray(ids)
    image.putpalette(palette(colours).tobytes())
    return _uri(_fitted(image, Image.Resampling.NEAREST), "png", optimize=True)


def palette(colours: np.ndarray) -> np.ndarray:
    """The colours of classes and of ignored pixels, (256, 3), each once: a pixel of a map identifies its class.

    Example:
        >>> palette(np.array([[0, 0, 9], [0, 0, 9]], np.uint8))[[0, 1, 255]].tolist()
        [[0, 0, 9], [0, 0, 10], [225, 225, 225]]
    """
    found, taken = np.full((256, 3), IGNORED, dtype=np.uint8), {IGNORED}
    for number, (red, green, blue) in enumerate(colours.tolist()):
        nearest = 1 if blue < 128 else -1
        while (red, green, blue) in taken:
            blue = (blue + nearest) % 256
        taken.add((red, green, blue))
        found[number] = red, green, blue
    return found


def curve(values: Sequence[float | None], steps: int) -> str:
    """The path of a line of values in [0, 1] in a box of 100 x 40, in the notation of SVG; nothing where one is None.

    A single value is a horizontal line.

    Example:
        >>> curve([None, 0.5, 1.0], 3), curve([0.25, None], 2), curve([0.25], 2)
        ('M50 20L100 0', 'M0 30h0', 'M0 30L100 30')
    """
    if len(values) == 1:
        values, steps = [values[0], values[0]], 2
    points = [
        None if value is None else f"{100 * step / max(1, steps - 1):.4g} {40 * (1 - value):.4g}"
        for step, value in enumerate(values)
    ]
    parts = []
    for before, point, after in zip([None, *points], points, [*points[1:], None], strict=False):
        if point is not None:
            parts.append(f"{'M' if before is None else 'L'}{point}" + ("h0" if before is after is None else ""))
    return "".join(parts)


def dots(path: str) -> str:
    """The lone points of a `curve`, which are drawn larger than its line.

    Example:
        >>> dots("M0 20L50 10M100 30h0")
        'M100 30h0'
    """
    return "".join(re.findall(r"M[^ML]+h0", path))


def _fitted(image: Image.Image, how: Image.Resampling) -> Image.Image:
    scale = min(1.0, SIDE / max(image.size))
    return image.resize((max(1, round(scale * image.width)), max(1, round(scale * image.height))), how)
