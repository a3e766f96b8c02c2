"""Published segmenters: detect the code base of a file from tensor names, and convert network and classes."""

from collections.abc import Callable, Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from contseg.data.classes import ClassTable
from contseg.data.datasets import digits, isprs, voc
from contseg.data.datasets.class_list import read_class_list
from contseg.data.lists import read_list
from contseg.errors import ContsegError, did_you_mean
from contseg.interop.checkpoint import read_tensors
from contseg.interop.names import RESNET_NAMES, load_strictly, prefixes_of, unwrapped
from contseg.interop.published import Source, convert_segmenter
from contseg.interop.ssseg import ssseg_names, ssseg_options
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.scenarios.orders import class_order
from contseg.scenarios.splits import parse_split

Converter = Callable[[dict[str, Tensor], Any], tuple[Segmenter, list[int]]]


def convert_ssseg(tensors: dict[str, Tensor], source: str = "ssseg") -> tuple[Segmenter, list[int]]:
    """A segmenter of the IDRNet toolbox as a `Segmenter` (eval mode), and its outputs (one step).

    Raises:
        ContsegError: a tensor is missing, unexpected or of another shape; nothing is ever left out silently.
    """
    options = ssseg_options(tensors)
    found = ssseg_names(tensors, options)
    classifier = found.get("classifier.steps.0.weight")
    if classifier is None:
        raise ContsegError(f"weights: no classifier with the tensor names of {source}")
    widths = [int(classifier.shape[0])]
    return load_strictly(Segmenter(options, widths), found), widths


CONVERTERS: dict[str, Converter] = {**dict.fromkeys(get_args(Source), convert_segmenter), "ssseg": convert_ssseg}
"""Code base to what turns its tensors into a segmenter and the outputs of each of its steps."""

MARKS = (
    ("csseg", "convs_cls."),
    ("sdr", "body.layer1."),
    ("mib", "body.mod1."),
    ("idec", "classifier.aspp_l1."),
    ("ssul", "classifier.head."),
    ("ssseg", "backbone_net."),
)
"""Beginnings of tensor names that only one family of code bases has, with one of its names."""


def recognise(names: Iterable[str]) -> str:
    """The code base with these tensor names: `mib` also means PLOP and SDR's in-place variant, `idec` for LAG.

    Raises:
        ContsegError: no code base has these names.

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
                f"weights: names of {source} are below {prefix} and {len(others)} more outside it, first {others[0]};"
                f" save what is below {prefix} alone"
            )
    if prefixes_of(names, RESNET_NAMES):
        raise ContsegError("weights: are those of a backbone alone; give them to training as backbone_weights=FILE")
    raise ContsegError(f"weights: names such as {', '.join(names[:2])} match no code base; supported: {known_sources()}")


def known_sources() -> str:
    """All code bases, for messages."""
    return ", ".join(sorted(CONVERTERS))


def convert_file(path: Path | str, source: str | None = None) -> tuple[Segmenter, str]:
    """A published segmenter in a checkpoint file as ours, and the code base it was read as.

    Leading parts that all of its names share (`model.`) are dropped.

    Args:
        source: one of `CONVERTERS`; default: recognised by its names.

    Raises:
        ContsegError: the code base is unknown, the file cannot be read, or not every tensor finds its place.
    """
    if source is not None and source not in CONVERTERS:
        raise ContsegError(f"--from: unknown code base '{source}'; {did_you_mean(source, CONVERTERS)}")
    tensors = unwrapped(read_tensors(path))
    try:
        used = source or recognise(tensors)
        segmenter, _ = CONVERTERS[used](tensors, used)
    except ContsegError as error:
        raise ContsegError(f"{path}: {error}") from None
    return segmenter, used


def under(segmenter: Segmenter, options: NetworkOptions) -> Segmenter:
    """The same weights in a network of other options, such as another output stride; in eval mode.

    Raises:
        ContsegError: the options need weights of other names or shapes.

    Example:
        >>> segmenter = Segmenter(NetworkOptions(backbone="resnet18"), [3])
        >>> under(segmenter, segmenter.options.changed(backbone={"output_stride": 8})).options.backbone.stride
        8
    """
    return load_strictly(Segmenter(options, segmenter.widths), dict(segmenter.state_dict()))


def classes_of_outputs(
    classes: str, outputs: int, table: ClassTable | None = None, split: str | None = None, order: str = "natural"
) -> ClassTable:
    """The classes of a segmenter's outputs, in their order.

    Where there is one output less than the table's classes with background, and no split, the network has no background.

    Args:
        classes: what to call the table in errors; the name of a dataset for its published orders.
        outputs: how many there are, an unknown not counted.
        table: all classes of the dataset; default: read by the name, see `named_table`.
        split: the steps of its training, if it has a part of the classes; default: it has all.
        order: of its training, see `class_order`.

    Raises:
        ContsegError: the outputs are not as many as the classes, or as those after any step of the split.

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
    """The class table that a name means: of a dataset, or read from a list (.txt, one name a line), or a folder with one.

    Raises:
        ContsegError: no dataset has this name, and no file.

    Example:
        >>> len(named_table("voc")), named_table("cityscapes").names[1]
        (21, 'road')
    """
    tables: dict[str, Callable[[], ClassTable]] = {
        "voc": lambda: voc.VOC.classes,
        "ade20k": lambda: ClassTable.official("ade20k", "unlabelled"),
        "cityscapes": lambda: ClassTable.official("cityscapes", "unscored"),
        "lip": lambda: ClassTable.official("lip", "annotated"),
        "coco-stuff-10k": lambda: ClassTable.official("coco_stuff", "unlabelled"),
        "coco-stuff-164k": lambda: ClassTable.official("coco_stuff", "unlabelled"),
        "pascal-context": lambda: ClassTable.official("pascal_context", "annotated"),
        "isprs": isprs._paper_classes,
        "digits": lambda: ClassTable(digits.NAMES, tuple(range(11)), digits.COLOURS),
    }
    if classes in tables:
        return tables[classes]()
    path = Path(classes)
    if path.is_dir():
        return read_class_list(path, "annotated").table
    if path.is_file():
        try:
            return ClassTable.of(read_list(path))
        except ContsegError as error:
            raise ContsegError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    raise ContsegError(
        f"--classes: '{classes}' is neither a dataset nor a list of names (.txt); {did_you_mean(classes, tables)}"
    )
