"""The picture of a plan: images x classes x steps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # works without a screen; must come before pyplot

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from contseg.atomic import atomic_file, writable
from contseg.errors import ContsegError
from contseg.replaceable import require_replaceable
from contseg.report.figures import plain

MARK = "contseg plan"
"""A text in the metadata of every picture."""
SUFFIXES = (".png", ".svg", ".pdf")
BARS = {"train_images": ("train", "#0072B2"), "memory_images": ("memory", "#E69F00"), "test_images": ("test", "#999999")}
MOST_WIDE_NAMES = 60


def draw_plan(plan: Mapping[str, Any]) -> Figure:
    """The number of training images with each class in each step, and the number of images per step.

    A frame marks the classes that are annotated in a step. In the other cells of a row the images contain the class without
    its label, which shifts the meaning of background. Bars on the left count images, with the memory as a separate part.

    Args:
        plan: as returned by `dataclasses.asdict`, or read from plan.json.
    """
    steps, names = plan["steps"], list(plan["class_names"])
    holding = np.array([step["train_holding"] for step in steps])
    count = len(names)
    wide = count <= MOST_WIDE_NAMES
    width = max(4.0, (0.3 if wide else 0.18) * count)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(width + 3.2, 0.4 * len(steps) + 2.2), sharey=True, width_ratios=[2.4, width], layout="constrained"
    )
    height = 0.8 / len(BARS)
    for row, (key, (label, colour)) in enumerate(BARS.items()):
        places = np.arange(len(steps)) + (row - 1) * height
        left.barh(places, [step[key] for step in steps], height, color=colour, label=label)
    left.invert_xaxis()
    left.set_xlabel("images")
    left.legend(frameon=False, fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, handlelength=1)
    left.spines[["top", "left"]].set_visible(False)
    left.set_yticks(range(len(steps)), [_label(step) for step in steps], fontsize=8)

    image = right.imshow(
        np.ma.masked_equal(holding, 0), cmap="Blues", aspect="auto", norm=LogNorm(vmin=0.8, vmax=max(2, holding.max()))
    )
    for row, step in enumerate(steps):
        for column, name in enumerate(names):
            if name in step["new_classes"]:
                right.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1))
    named: dict[str, Any] = {"rotation": 90, "fontsize": 7}
    if wide:
        named = {"rotation": 60, "ha": "right", "rotation_mode": "anchor", "fontsize": 8}
    right.set_xticks(range(count), [plain(name) for name in names], **named)
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    figure.colorbar(image, ax=right, label="training images that contain the class", fraction=0.02, pad=0.01)
    what = f"{plan['dataset']}, {plan['split']} by {plan['by']}, {plan['setting']}"
    figure.suptitle(plain(f"{what}, policy {plan['policy']}, plan {plan['hash']}"), fontsize=10)
    return figure


def write_plan_picture(plan: Mapping[str, Any], path: Path | str) -> Path:
    """Draw a plan to a PNG, SVG or PDF file, depending on its suffix.

    Raises:
        ContsegError: the suffix is another one, or the file exists and is no such picture, or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ContsegError(f"{path}: cannot draw a '{path.suffix}' file; end the name in {', '.join(SUFFIXES)}")
    require_replaceable(path, MARK, "--draw")
    figure = draw_plan(plan)
    try:
        with writable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        kind = path.suffix.lower().removeprefix(".")
        with atomic_file(path) as partial:
            figure.savefig(partial, format=kind, dpi=120, metadata={"Software" if kind == "png" else "Creator": MARK})
    finally:
        plt.close(figure)
    return path


def _label(step: Mapping[str, Any]) -> str:
    domains = list(step["domains"])
    shown = plain(", ".join(domains)) if len(domains) <= 2 else f"{len(domains)} domains"
    return f"step {step['index']}" + (f"\n{shown}" if shown else "")
