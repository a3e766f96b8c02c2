"""Convert published segmenters; the code base of a file is detected from tensor names."""

from collections.abc import Callable, Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from contseg.data.classes import ClassTable
from contseg.data.datasets.class_list import read_class_list
from contseg.data.lists import read_list
from contseg.data.open import DATASETS
from contseg.errors import ContsegError, did_you_mean
from contseg.interop.checkpoint import read_tensors
from contseg.interop.eomt import add_backbone, convert_eomt, without_criterion
from contseg.interop.mbs import convert_mbs
from contseg.interop.names import RESNET_NAMES, load_strictly, prefixes_of, unwrapped
from contseg.interop.one_vs_rest import OneVsRestSource, convert_one_vs_rest, is_star
from contseg.interop.published import Source, convert_segmenter
from contseg.interop.residual import ResidualSource, convert_residual
from contseg.interop.ssseg import ssseg_names, ssseg_options
from contseg.models.make import make_segmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.plugins import Registry
from contseg.scenarios.orders import class_order
from contseg.scenarios.splits import parse_split

Converter = Callable[[dict[str, Tensor], Any], tuple[Segmenter, list[int]]]


def convert_ssseg(tensors: dict[str, Tensor], source: str = "ssseg") -> tuple[Segmenter, list[int]]:
    """Convert a segmenter of the IDRNet toolbox to a `Segmenter` (eval mode); also returns its outputs (one step).

    Raises:
        ContsegError: a tensor is missing or unexpected, or has another shape.
    """
    options = ssseg_options(tensors)
    found = ssseg_names(tensors, options)
    classifier = found.get("classifier.steps.0.weight")
    if classifier is None:
        raise ContsegError(f"weights: no classifier with the tensor names of {source}")
    widths = [int(classifier.shape[0])]
    return load_strictly(Segmenter(options, widths), found), widths


CONVERTERS: Registry[Converter] = Registry(
    "converters",
    "--from",
    {
        **dict.fromkeys(get_args(Source), convert_segmenter),
        **dict.fromkeys(get_args(OneVsRestSource), convert_one_vs_rest),
        **dict.fromkeys(get_args(ResidualSource), convert_residual),
        "ssseg": convert_ssseg,
        "eomt": convert_eomt,
        "mbs": convert_mbs,
    },
)
"""Code base to the function that converts its tensors to a segmenter and the outputs per step."""

MARKS = (
    ("csseg", "convs_cls."),
    ("sdr", "body.layer1."),
    ("mib", "body.mod1."),
    ("idec", "classifier.aspp_l1."),
    ("barm", "classifier.head_pre."),
    ("ssul", "classifier.head."),
    ("ssseg", "backbone_net."),
    ("dkd", "aspp.last_conv."),
    ("eomt", "mask_head.0."),
    ("mbs", "decoder.cls_emb."),
)
"""Beginnings of tensor names that are unique to a family of code bases, with the name of one of them."""


def recognise(names: Iterable[str]) -> str:
    """Detect the code base from tensor names: `mib` also for PLOP and SDR's in-place variant, `idec` also for LAG, `dkd`
    also for STAR.

    Raises:
        ContsegError: no code base has such names.

    Example:
        >>> recognise(["classifier.head.0.0.weight", "classifier.aspp_l1.convs.0.0.weight"])
        'idec'
    """
    names = list(names)
    for source, mark in MARKS:
        if any(name.startswith(mark) for name in names):
            return source
    for source, mark in MARKS:
        prefix = next((name[: name.index(f".{mark}") + 1] for name in names if f".{mark}" in name), None)
        if prefix:
            others = [name for name in names if not name.startswith(prefix)]
            raise ContsegError(
                f"weights: names of {source} are below {prefix}, but {len(others)} others are not, such as {others[0]};"
                f" save only the tensors below {prefix}"
            )
    if prefixes_of(names, RESNET_NAMES):
        raise ContsegError("weights: are those of a backbone only; use them in training with backbone_weights=FILE")
    raise ContsegError(f"weights: names such as {', '.join(names[:2])} match no code base; supported: {known_sources()}")


def known_sources() -> str:
    """The names of all code bases, for messages."""
    return ", ".join(sorted(CONVERTERS))


def convert_file(path: Path | str, source: str | None = None, base: Path | str | None = None) -> tuple[Segmenter, str]:
    """Convert a published segmenter in a checkpoint file; also returns its code base.

    A prefix that all tensor names share (`model.`) is removed.

    Args:
        source: a key of `CONVERTERS`; default: detected from the names.
        base: weights of the backbone, as of `load_backbone`, to which those in the file are differences (EoMT over DINOv3).

    Raises:
        ContsegError: the code base is unknown or has no differences, a file cannot be read, or a tensor does not fit.
    """
    if source is not None:
        CONVERTERS.check(source)
    tensors = unwrapped(without_criterion(read_tensors(path)))
    try:
        used = source or recognise(tensors)
        if source is None and used == "dkd" and is_star(tensors):
            used = "star"
        if base is not None and used != "eomt":
            raise ContsegError(f"--base: files of {used} hold whole weights, not differences; remove it")
        segmenter, _ = CONVERTERS[used](tensors, used)
    except ContsegError as error:
        raise ContsegError(f"{path}: {error}") from None
    if base is not None:
        add_backbone(segmenter, base)
    return segmenter, used


def under(segmenter: Segmenter, options: NetworkOptions) -> Segmenter:
    """The same weights in a network with other options, such as another output stride; in eval mode.

    Raises:
        ContsegError: the options require tensors with other names or shapes.

    Example:
        >>> segmenter = Segmenter(NetworkOptions(backbone="resnet18"), [3])
        >>> under(segmenter, segmenter.options.changed(backbone={"output_stride": 8})).options.backbone.stride
        8
    """
    return load_strictly(make_segmenter(options, segmenter.widths), dict(segmenter.state_dict()))


def classes_of_outputs(
    classes: str, outputs: int, table: ClassTable | None = None, split: str | None = None, order: str = "natural"
) -> ClassTable:
    """The classes of a segmenter's outputs, in their order.

    If there is one output less than classes including background, and no split, the network has no background.

    Args:
        classes: name of the table in errors; the name of a dataset for its published orders.
        outputs: number of outputs, without an output "unknown".
        table: all classes of the dataset; default: see `named_table`.
        split: split of the training, if the segmenter may have only a part of the classes; default: it has all.
        order: class order of the training, see `class_order`.

    Raises:
        ContsegError: the number of outputs is not that of the classes, or of those after any step of the split.

    Example:
        >>> classes_of_outputs("voc", 17, split="15-1", order="b").names[-2:]
        ('diningtable', 'sheep')
        >>> classes_of_outputs("ade20k", 150).background
        'none'
    """
    table = table or named_table(classes)
    ids = class_order(order, table, classes, split or "offline")
    if split is None:
        if outputs == len(ids):
            return table.subset(ids)
        if table.has_background and outputs == len(ids) - 1:
            return table.without_background().subset(ids[1:])
        counts = f"{len(ids)} classes" + (f" ({len(ids) - 1} without background)" if table.has_background else "")
        raise ContsegError(
            f"--classes {classes}: {counts}, but the network has {outputs} outputs; name its own classes, or add"
            " --split of its training"
        )
    known = list(accumulate(parse_split(split, len(table.foreground)), initial=int(table.has_background)))[1:]
    if outputs not in known:
        raise ContsegError(
            f"--split {split}: {', '.join(map(str, known))} classes of {classes} after its steps, but the network"
            f" has {outputs} outputs"
        )
    return table.subset(ids[:outputs])


def named_table(classes: str) -> ClassTable:
    """The class table of a dataset, or of a list of names (.txt, one name per line), or of a folder with such a list.

    Raises:
        ContsegError: there is no dataset and no file of this name.

    Example:
        >>> len(named_table("voc")), named_table("cityscapes").names[1]
        (21, 'road')
    """
    if classes in DATASETS and hasattr(DATASETS[classes], "classes"):
        return DATASETS[classes].classes
    path = Path(classes)
    if path.is_dir():
        return read_class_list(path, "annotated").table
    if path.is_file():
        try:
            return ClassTable.of(read_list(path))
        except ContsegError as error:
            raise ContsegError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    known = [name for name, kind in DATASETS.items() if hasattr(kind, "classes")]
    raise ContsegError(
        f"--classes: '{classes}' is neither a dataset nor a list of names (.txt); {did_you_mean(classes, known)}"
    )
