"""Merge two extensions of one model."""

from pathlib import Path
from typing import Any

from contseg.atomic import atomic_folder
from contseg.data.classes import ClassTable
from contseg.errors import ContsegError
from contseg.extension.data import extended_table
from contseg.extension.folder import readout_of, require_new, stored_sums, tensors_sha256
from contseg.extension.forget import Changed
from contseg.interop.pretrained import save_pretrained
from contseg.methods.gaussian.readout import apply
from contseg.methods.gaussian.sums import GaussianSums
from contseg.recipes.models import Opened, open_model


def merge(one: Path | str, other: Path | str, out: Path | str) -> Changed:
    """Merge two extensions of one model by their Gaussian statistics, which add up, and write a new folder.

    If the model had statistics, the result is that of extending it by both folders, in any order. If not, each extension
    estimated the statistics of old classes on its own images, and the result is the estimate on both.

    Args:
        one, other: folders of `extend`, with statistics.
        out: folder of the new model; must not exist. The new classes of `one` come before those of `other`.

    Raises:
        ContsegError: a model is no extension or has no statistics, they extend different models, both learned a class of one
            name, or `out` exists.
    """
    out = Path(out)
    require_new(out)
    first, second = open_model(one), open_model(other)
    bases = [_base(opened, path) for opened, path in ((first, one), (second, other))]
    if bases[0]["sha256"] != bases[1]["sha256"]:
        raise ContsegError(
            f"{other}: extends another model ({bases[1]['path']}) than {one} ({bases[0]['path']}); extend {one} by its data"
        )
    new = [opened.source["classes"]["new"] for opened in (first, second)]
    both = [name for name in new[0] if name in new[1]]
    if both:
        raise ContsegError(f"{other}: '{both[0]}' is also new in {one}; forget it in one of them first")
    sums, added = _sums(first, one), _sums(second, other)
    if bases[0]["statistics"]:
        known = second.source["classes"]["known"]
        if known and first.source["classes"]["known"]:
            raise ContsegError(
                f"{other}: like {one}, it also learned more of old classes ({', '.join(known)}); extend {one} by its folder"
            )
        own = added.without(*new[1]) if not known else sums.without(*new[0])
        merged = sums + (added - own)
    else:
        merged = sums + added
    merged_from = [
        {"path": str(path), "sha256": tensors_sha256(opened.segmenter), "data": opened.source["data"]}
        for path, opened in ((one, first), (other, second))
    ]
    table, segmenter = _joined(first.classes, second.classes, new[1]), first.segmenter
    segmenter.grow(len(new[1]), "random")
    apply(segmenter, merged, table, **readout_of(first))
    source = first.source | {
        "classes": {
            "new": [*new[0], *new[1]],
            "known": sorted({*first.source["classes"]["known"], *second.source["classes"]["known"]}),
        },
        "merged": merged_from,
    }
    with atomic_folder(out) as folder:
        save_pretrained(folder, segmenter, table, source, statistics=merged.state_dict())
    return Changed(out, segmenter.eval(), table)


def _base(opened: Opened, path: Path | str) -> dict[str, Any]:
    """The model that was extended.

    Raises:
        ContsegError: the model is no extension.
    """
    if "base" not in opened.source or "classes" not in opened.source:
        raise ContsegError(f"{path}: is no extended model; merge takes two folders of contseg extend")
    return opened.source["base"]


def _sums(opened: Opened, path: Path | str) -> GaussianSums:
    """The statistics of an extension.

    Raises:
        ContsegError: it has none.
    """
    sums = stored_sums(opened)
    if sums is None:
        method = opened.source["method"]
        raise ContsegError(f"{path}: method {method} has no statistics to merge; extend again with --method gaussian")
    return sums


def _joined(one: ClassTable, other: ClassTable, new: list[str]) -> ClassTable:
    """The classes of one table and the new ones of another; an id or colour that is in use is replaced by a free one."""
    rows = [other.names.index(name) for name in new]
    return extended_table(one, new, [other.colours[row] for row in rows])
