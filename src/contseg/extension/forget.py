"""Remove classes from a model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from contseg.atomic import atomic_folder
from contseg.data.classes import ClassTable
from contseg.errors import ContsegError, did_you_mean
from contseg.extension.folder import readout_of, require_new, stored_sums, tensors_sha256
from contseg.extension.gaussian_heads import COLUMNS
from contseg.interop.pretrained import save_pretrained
from contseg.methods.gaussian.readout import apply
from contseg.models.make import make_segmenter
from contseg.models.segmenter import Segmenter
from contseg.recipes.models import open_model


@dataclass(frozen=True)
class Changed:
    """A model with other classes.

    Args:
        folder: of `save_pretrained`.
        segmenter: in eval mode.
        table: its classes, in output order.
        notes: findings, one line each.
    """

    folder: Path
    segmenter: Segmenter
    table: ClassTable
    notes: tuple[str, ...] = ()


def forget(model: Path | str, names: str | Sequence[str], out: Path | str) -> Changed:
    """Remove classes from a model, and write the rest to a new folder. The model itself is not changed.

    With the statistics of a Gaussian head the result is as if the classes had never been learned. Otherwise their outputs
    are removed, and all other weights stay as they are.

    Args:
        model: see `open_model`.
        names: of one or several classes.
        out: folder of the new model; must not exist.

    Raises:
        ContsegError: the model lacks a class, the class is background or the last one, or `out` exists.
    """
    out, names = Path(out), [names] if isinstance(names, str) else list(names)
    require_new(out)
    opened = open_model(model)
    table = opened.classes
    first = int(table.has_background)
    for name in names:
        if name not in table.names:
            raise ContsegError(f"{model}: has no class '{name}'; {did_you_mean(name, table.names)}")
        if table.names.index(name) < first:
            raise ContsegError(f"{model}: '{name}' is the background, which cannot be forgotten; name another class")
    if len(set(names)) >= len(table) - first:
        raise ContsegError(f"{model}: no class would be left; keep at least one")
    segmenter = opened.segmenter
    for place in sorted({table.names.index(name) for name in names}, reverse=True):
        segmenter = without_output(segmenter, place)
    left = table.subset([number for number, name in zip(table.ids, table.names, strict=True) if name not in names])
    sums = stored_sums(opened)
    notes: tuple[str, ...] = ()
    if sums is not None:
        sums = sums.without(*(name for name in dict.fromkeys(names) if name in sums.classes))
        apply(segmenter, sums, left, **readout_of(opened))
    elif opened.source.get("method") != COLUMNS:
        notes = ("the outputs of the classes are removed; other weights that changed with them stay",)
    source = opened.source | {
        "forgotten": {"from": str(model), "sha256": tensors_sha256(opened.segmenter), "classes": names},
    }
    with atomic_folder(out) as folder:
        save_pretrained(folder, segmenter, left, source, statistics=None if sums is None else sums.state_dict())
    return Changed(out, segmenter.eval(), left, notes)


@torch.no_grad()
def without_output(segmenter: Segmenter, place: int) -> Segmenter:
    """A copy of a segmenter without one class, whose other outputs are bit-equal.

    Args:
        place: position of the class, without an unknown output.
    """
    output = place + int(segmenter.options.unknown)
    step, row = 0, output
    while row >= segmenter.widths[step]:
        row -= segmenter.widths[step]
        step += 1
    widths = [width - (number == step) for number, width in enumerate(segmenter.widths)]
    made = make_segmenter(segmenter.options, [width for width in widths if width]).to(segmenter.mean.device)
    expected, kept = made.state_dict(), {}
    for name, value in segmenter.state_dict().items():
        found = re.fullmatch(r"(.*\bsteps\.)(\d+)(\..*)", name)
        number = int(found[2]) if found else -1
        if found and number == step and not widths[step]:
            continue
        if found and number > step and not widths[step]:
            name = f"{found[1]}{number - 1}{found[3]}"
        kept[name] = _without(value, row if found else place, expected[name].shape)
    made.load_state_dict(kept)
    return made.train(segmenter.training)


def _without(value: Tensor, row: int, shape: torch.Size) -> Tensor:
    """The tensor without one row of the dimension in which it is larger than `shape`."""
    for dimension, (own, wanted) in enumerate(zip(value.shape, shape, strict=True)):
        if own != wanted:
            return torch.cat([value.narrow(dimension, 0, row), value.narrow(dimension, row + 1, own - row - 1)], dimension)
    return value
