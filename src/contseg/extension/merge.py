"""Merge two extensions of one model."""

from pathlib import Path
from typing import Any

from contseg.atomic import atomic_folder
from contseg.data.classes import ClassTable
from contseg.errors import ContsegError
from contseg.extension.folder import require_new, tensors_sha256
from contseg.extension.forget import Changed
from contseg.interop.pretrained import load_statistics, save_pretrained
from contseg.methods.gaussian.readout import apply
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
            f"{other}: extends another model ({bases[1]['path']}) than {one} ({bases[0]['path']}); extend {one} by its folder"
        )
    new = [opened.source["classes"]["new"] for opened in (first, second)]
    both = [name for name in new[0] if name in new[1]]
    if both:
        raise ContsegError(f"{other}: '{both[0]}' is also new in {one}; forget it in one of them first")
    sums, added = load_statistics(_statistics(first, one)), load_statistics(_statistics(second, other))
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
    table, segmenter = _joined(first.classes, second.classes, new[1]), first.segmenter
    segmenter.grow(len(new[1]), "random")
    apply(segmenter, merged, table, **first.source.get("readout", {}))
    source = first.source | {
        "classes": {"new": [*new[0], *new[1]], "known": sorted({*_known(first), *_known(second)})},
        "merged": [{"path": str(path), "sha256": tensors_sha256(opened.segmenter), "data": opened.source["data"]}
                   for path, opened in ((one, open_model(one)), (other, second))],
    }  # fmt: skip
    with atomic_folder(out) as folder:
        save_pretrained(folder, segmenter, table, source, statistics=merged)
    return Changed(out, segmenter.eval(), table)
