"""Published numbers, and those that match a recipe."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from contseg.recipes.recipe import Recipe

FIGURES = ("old", "new", "all")
"""The numbers of a row: mIoU or PQ of the classes of step 0, of all later steps, and of all classes."""

MASK_NETWORK = "mask2former"
"""The network of most published results of methods that classify masks."""

COUNTED = {"yes": "counted", "no": "not counted", "": "unknown"}
"""How a table shows whether `old` and `all` count background."""

HEAD_NAMES = {"pspnet": "psp", "upernet": "uper"}
"""Name of a head in recipes to its name in published tables, where they differ."""


@dataclass(frozen=True)
class PublishedRow:
    """A line of `published.csv`: a published result and how it was measured. An empty text means that the source does not
    state it.

    Attributes:
        method: see `method_key`; also methods that are not in the package (`comastre`).
        dataset: as in a recipe; `isprs` is Potsdam, `pascal-context` its 59 classes.
        split, setting: as in a recipe; the split of `joint` gives the groups that are scored, and its setting is empty.
        ratio: share of the images of later steps that were used.
        network: such as `fcn_resnet50-d8`, where the source compares networks, and always with class tokens;
            `mask2former` for methods that classify masks; empty for the network of the method's paper.
        inference: `single` view, `flip`, or `ms+flip` for several scales and the mirrored image.
        task: what the numbers are: `miou` or `pq` (panoptic quality).
        old, new, all: in percent, None where it is not published.
        background: whether `old` and `all` count background: `yes`, `no`, or unknown.
        policy: the label conventions, see `LabelPolicy`.
        test: the part of an image that was scored: `crop 512`, the centre of the resized image, or `whole`.
        certainty: `published` by the authors, `quoted` by later papers, a `rerun` by others, the authors' `log`, or from
            `memory`.
        source: where it was published.
    """

    method: str
    dataset: str
    split: str
    setting: str
    ratio: float
    network: str
    inference: Literal["single", "flip", "ms+flip"]
    task: Literal["miou", "pq"]
    old: float | None
    new: float | None
    all: float | None
    background: Literal["yes", "no", ""]
    policy: str
    test: str
    certainty: Literal["published", "quoted", "rerun", "log", "memory"]
    source: str

    @property
    def shown(self) -> str:
        """The numbers, with the inference if it is not a single view: `65.12 / 21.11 / 54.64`, `60.83 (flip)`, `PQ 35.4`."""
        values = (self.old, self.new, self.all) if self.old is not None or self.new is not None else (self.all,)
        figures = " / ".join("-" if value is None else f"{value:g}" for value in values)
        if self.task == "pq":
            figures = f"PQ {figures}"
        return figures if self.inference == "single" else f"{figures} ({self.inference})"


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """All published numbers in the package.

    Example:
        >>> rows = (row for row in published_rows() if row.certainty == "published")
        >>> next(row.all for row in rows if (row.method, row.split) == ("plop", "15-1"))
        54.64
    """
    text = (files("contseg.recipes") / "published.csv").read_text(encoding="utf-8")
    return tuple(_row(line) for line in csv.DictReader(text.splitlines()))


WITH_MEMORY = ("balconpas",)
"""Methods whose published numbers are with a memory."""


def published_for(recipe: Recipe) -> list[PublishedRow]:
    """The rows with the method, dataset, split, setting and ratio of a recipe, and with its network if they have one.

    Next to another network that classifies masks there are those of Mask2Former.

    Empty for class orders, lists of images and domains without published numbers.

    Example:
        >>> from contseg.recipes.read import read_recipe
        >>> [row.all for row in published_for(read_recipe("voc/plop_15-1_overlapped")) if row.certainty == "published"]
        [54.64]
        >>> published_for(read_recipe("digits/plop_5-1"))
        []
    """
    scenario = recipe.scenario
    if scenario.by == "domain" or scenario.order != "natural" or scenario.lists:
        return []
    if scenario.domains and not (recipe.data.dataset == "isprs" and scenario.domains == ["potsdam"]):
        return []
    method, dataset, network = method_key(recipe).removesuffix("-masks"), recipe.data.dataset, network_key(recipe)
    if dataset == "pascal-context" and recipe.data.options.get("background", True):
        return []  # 60 classes
    split = scenario.scored_as or scenario.split
    rows = [
        row
        for row in published_rows()
        if (row.method, row.dataset, row.split, row.ratio) == (method, dataset, split, scenario.ratio)
        and row.setting in ("", scenario.setting)
    ]
    fitting = [network]
    if classifies_masks(recipe):
        fitting.append(MASK_NETWORK)
    elif not recipe.network.head.tokens:  # a row without a network is about the convolutional one of its paper
        fitting.append("")
    return next((found for name in fitting if (found := [row for row in rows if row.network == name])), [])


def classifies_masks(recipe: Recipe) -> bool:
    """Whether the network of a recipe predicts masks and their classes, not a class for each pixel."""
    return bool(getattr(recipe.network.head, "masks", False))


def method_key(recipe: Recipe) -> str:
    """The name of a recipe's method in the table of published numbers.

    It is the method's name, except `joint` for fine-tuning in one step, `idrnet` for the same with IDRNet, and `sdr+mib` for
    SDR on MiB. Fusion of weights adds `-ewf`, a replay memory `-m`.

    Example:
        >>> from contseg.recipes.read import read_recipe
        >>> method_key(read_recipe("digits/joint")), method_key(read_recipe("digits/sdr_5-1"))
        ('joint', 'sdr+mib')
    """
    name = recipe.method["name"]
    if name == "finetune" and recipe.scenario.split == "offline":
        return "idrnet" if recipe.network.idrnet else "joint"
    if name == "sdr" and recipe.method["on"] == "mib":
        name = "sdr+mib"
    if recipe.method.get("fusion"):
        name = f"{name}-{recipe.method['fusion']}"
    return f"{name}-m" if recipe.scenario.memory and name not in WITH_MEMORY else name


def network_key(recipe: Recipe) -> str:
    """The name of a recipe's network in the table of published numbers.

    Example:
        >>> from contseg.recipes.read import read_recipe
        >>> network_key(read_recipe("digits/joint", ["network.head=pspnet", "network.backbone=swin_large"]))
        'psp_swin-large'
    """
    network = recipe.network
    backbone = network.backbone.name.replace("_", "-")
    if backbone.startswith("resnet"):
        backbone += f"-d{network.backbone.stride}"
    return f"{HEAD_NAMES.get(network.head.name, network.head.name)}_{backbone}"


def _row(line: dict[str, str]) -> PublishedRow:
    figures = {key: float(line[key]) if line[key] else None for key in FIGURES}
    return PublishedRow(**(line | figures | {"ratio": float(line["ratio"])}))  # type: ignore[arg-type]
