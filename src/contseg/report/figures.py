"""The pictures of a report, each as a data URI."""

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")  # before pyplot: no screen is needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from contseg.errors import visible

# Okabe and Ito's colours, told apart by colour-blind readers too
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
IGNORED = (225, 225, 225)
THUMBNAIL = 112


def png_uri(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8 as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def plain(text: str) -> str:
    """A text for a picture, drawn as it is: no formula between dollars, no escape codes; a legend leaves none out.

    Example:
        >>> plain("$x_{$"), plain("_hidden")
        ('\\\\$x_{\\\\$', ' _hidden')
    """
    shown = visible(text).replace("\n", " ").replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown  # legends take a leading underscore for "not to be shown"


def svg_uri(figure: Figure) -> str:
    """A drawing as a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def curves(series: Mapping[str, Mapping[str, Sequence[float | None]]]) -> str:
    """mIoU against steps, in percent, a panel for all, old and new classes and a line per run.

    Args:
        series: run -> {"all", "old", "new"} -> one value in [0, 1] per step. A run of one step is drawn across the panel.
    """
    steps = max(len(values["all"]) for values in series.values())
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), sharey=True)
    titles = {"all": "all classes seen so far", "old": "classes of step 0", "new": "classes of later steps"}
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        for colour, (name, values) in zip(LINE_COLOURS * 3, series.items(), strict=False):
            points = [np.nan if value is None else 100 * value for value in values[key]]
            if len(points) == 1 and steps > 1:
                axis.axhline(points[0], color=colour, linestyle="--", linewidth=1.5, label=plain(name))
            else:
                axis.plot(range(len(points)), points, color=colour, marker="o", markersize=4, label=plain(name))
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("after step")
        axis.set_xticks(range(steps))
        axis.set_ylim(0, 100)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("mIoU in %")
    axes[0].legend(frameon=False, fontsize=9)
    return svg_uri(figure)


def heat_map(iou: np.ndarray, classes: Sequence[str], groups: Sequence[int]) -> str:
    """IoU of each class (or mIoU of each domain) after each step.

    Args:
        iou: (steps, classes) in [0, 1], NaN where a class is not known yet or absent.
        classes: names.
        groups: the step that brought each class; a line is drawn where it begins.
    """
    steps, count = iou.shape
    figure, axis = plt.subplots(figsize=(max(4.0, 0.42 * count + 1.5), 0.36 * steps + 1.6))
    axis.imshow(np.ma.masked_invalid(100 * iou), vmin=0, vmax=100, cmap="viridis", aspect="auto")
    for step in range(steps):
        for column in range(count):
            if count <= 40 and not np.isnan(iou[step, column]):
                value = 100 * iou[step, column]
                axis.text(
                    column, step, f"{value:.0f}", ha="center", va="center", fontsize=7, color="w" if value < 60 else "k"
                )
    for column in range(1, count):
        if groups[column] != groups[column - 1]:
            axis.axvline(column - 0.5, color="w", linewidth=1.5)
    axis.set_xticks(range(count), [plain(name) for name in classes], rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(steps), [f"after {step}" for step in range(steps)], fontsize=8)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return svg_uri(figure)


def losses(series: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Training loss per epoch, a line per run; steps follow each other.

    Args:
        series: run -> (step, loss) of each epoch in order.
    """
    figure, axis = plt.subplots(figsize=(11, 2.6))
    for colour, (name, values) in zip(LINE_COLOURS * 3, series.items(), strict=False):
        axis.plot([loss for _, loss in values], color=colour, label=plain(name), linewidth=1.5)
    longest = max(series.values(), key=lambda values: len({step for step, _ in values}), default=[])
    for position in range(1, len(longest)):
        if longest[position][0] != longest[position - 1][0]:
            axis.axvline(position - 0.5, color="0.8", linewidth=1)
    axis.set_yscale("log")
    axis.set_xlabel("epoch (a line where a step begins)")
    axis.set_ylabel("training loss")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    return svg_uri(figure)


def thumbnail(image: np.ndarray) -> str:
    """A picture, THUMBNAIL pixels high."""
    width = max(1, round(image.shape[1] * THUMBNAIL / image.shape[0]))
    return png_uri(np.asarray(Image.fromarray(image).resize((width, THUMBNAIL), Image.Resampling.BILINEAR)))


def coloured(ids: np.ndarray, colours: np.ndarray) -> str:
    """A label map in class colours, THUMBNAIL pixels high; ignored pixels are light grey."""
    palette = np.full((256, 3), IGNORED, dtype=np.uint8)
    palette[: len(colours)] = colours
    width = max(1, round(ids.shape[1] * THUMBNAIL / ids.shape[0]))
    return png_uri(palette[np.asarray(Image.fromarray(ids).resize((width, THUMBNAIL), Image.Resampling.NEAREST))])
