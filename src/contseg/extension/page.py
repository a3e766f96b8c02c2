"""The page of an extension: a self-contained HTML file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contseg.atomic import write_text
from contseg.data.classes import IGNORE, UNDECIDED, ClassTable
from contseg.evaluation.inference import WHOLE, Inference
from contseg.evaluation.predict import predict_image
from contseg.extension.measure import Photo
from contseg.models.segmenter import Segmenter
from contseg.report.figures import label_map, palette
from contseg.report.figures import photo as drawn
from contseg.report.page import environment
from contseg.report.tables import html_colour

PICTURES = 8


@dataclass(frozen=True)
class Picture:
    """An image on which the models disagree, as data URIs.

    Args:
        changed: share of the pixels outside of labels of new classes whose class changed.
        labels: None without labels.
    """

    name: str
    changed: float
    image: str
    labels: str | None
    before: str
    after: str
    difference: str


def picture(
    photo: Photo, changed: float, old: Segmenter, new: Segmenter, table: ClassTable, inference: Inference = WHOLE
) -> Picture:
    """Draw an image with the predictions of both models; pixels whose class did not change are faint in `difference`.

    Args:
        table: classes of the new model.
    """
    colours = np.array(table.colours, dtype=np.uint8)
    before, after = (_shown(predict_image(model, photo.image, inference)) for model in (old, new))
    labels = None if photo.labels is None else np.where(photo.labels < len(table), photo.labels, 255).astype(np.uint8)
    return Picture(
        photo.name,
        changed,
        drawn(photo.image),
        None if labels is None else label_map(labels, colours),
        label_map(before, colours),
        label_map(after, colours),
        label_map(np.where(before != after, after, 255).astype(np.uint8), colours),
    )


def _shown(outputs: np.ndarray) -> np.ndarray:
    """Class outputs (H, W) uint8; undecided pixels as ignored ones."""
    return np.where(outputs == UNDECIDED, IGNORE, outputs).astype(np.uint8)


def write_page(path: Path, record: Mapping[str, Any], pictures: Iterable[Picture], table: ClassTable) -> None:
    """Write the page of an extension.

    Args:
        record: content of result.json.
        table: classes of the new model.
    """
    page = environment("contseg.extension").get_template("extension.html")
    colours = palette(np.array(table.colours, dtype=np.uint8))
    legend = [(name, html_colour(colours[place])) for place, name in enumerate(table.names)]
    notices = [("", text) for text in record["warnings"]]
    write_text(path, page.render(**record, notices=notices, pictures=list(pictures), legend=legend))
