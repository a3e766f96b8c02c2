"""Published numbers, and those that match a recipe."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from contseg.recipes.recipe import Recipe

FIGURES = ("old", "new", "all")
"""What a row publishes: mIoU of the classes of step 0, of all later steps, and of all classes."""

COUNTED = {"yes": "counted", "no": "not counted", "": "unknown"}
"""How a table shows whether `old` and `all` count background."""

HEAD_NAMES = {"pspnet": "psp", "upernet": "uper"}
"""What the published tables call a head, where it is not what a recipe calls it."""


@dataclass(frozen=True)
class PublishedRow:
    """A line of `published.csv`: a published result, and how it was measured. An empty text: not stated by the source.

    Attributes:
        method: as of `method_key`; also methods that the package has not (`rcil`, `star`, `simcis`).
        dataset: as in a recipe; `isprs` is Potsdam, `pascal-context` its 59 classes.
        split, setting: as in a recipe; of `joint` the split is the one whose groups are scored, and there is no setting.
        ratio: share of the images of later steps that were used.
        network: such as `fcn_resnet50-d8`, where the table compares networks; empty is the network of the method's papers.
        look: `single`, `flip`, or `ms+flip` for several scales and the mirrored image.
        old, new, all: mIoU in percent, None where it is not published.
        background: whether `old` and `all` count background: `yes`, `no`, or unknown.
        policy: the label conventions, see `LabelPolicy`.
        test: what of an image was scored: `crop 512`, the centre of the resized image, or `whole`.
        sure: `published` by its authors, `quoted` by later papers, `rerun` by others, the authors' `log`, or from `memory`.
        source: where it was published.
    """

    method: str
    dataset: str
    split: str
    setting: str
    ratio: float
    network: str
    look: Literal["single", "flip", "ms+flip"]
    old: float | None
    new: float | None
    all: float | None
    background: Literal["yes", "no", ""]
    policy: str
    test: str
    sure: Literal["published", "quoted", "rerun", "log", "memory"]
    source: str

    @property
    def shown(self) -> str:
        """The numbers, and the inference if not a single view: `65.12 / 21.11 / 54.64`, `60.83 (flip)`."""
        values = (self.old, self.new, self.all) if self.old is not None or self.new is not None else (self.all,)
        figures = " / ".join("-" if value is None else f"{value:g}" for value in values)
        return figures if self.look == "single" else f"{figures} ({self.look})"


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """All published numbers in the package.

    Example:
        >>> next(row.all for row in published_rows() if (row.method, row.split, row.sure) == ("plop", "15-1", "published"))
        54.64
    """
    text = (files("contseg.recipes") / "published.csv").read_text(encoding="utf-8")
    return tuple(_row(line) for line in csv.DictReader(text.splitlines()))


def published_for(recipe: Recipe) -> list[PublishedRow]:
    """What was published for method, dataset, split, setting and ratio of a recipe, and for its network if the table has it.

    Empty for class orders, lists of images and domains that no row has.

    Example:
        >>> from contseg.recipes.read import read_recipe
        >>> [row.all for row in published_for(read_recipe("voc/plop_15-1_overlapped")) if row.sure == "published"]
        [54.64]
        >>> published_for(read_recipe("digits/plop_5-1"))
        []
    """
    scenario = recipe.scenario
    if scenario.by == "domain" or scenario.order != "natural" or scenario.lists:
        return []
    if scenario.domains and not (recipe.data.dataset == "isprs" and scenario.domains == ["potsdam"]):
        return []
    method, dataset, network = method_key(recipe), recipe.data.dataset, network_key(recipe)
    if dataset == "pascal-context" and recipe.data.options.get("background", True):
        return []  # 60 classes
    split = scenario.scored_as or scenario.split
    rows = [
        row
        for row in published_rows()
        if (row.method, row.dataset, row.split, row.ratio) == (method, dataset, split, scenario.ratio)
        and row.setting in ("", scenario.setting)
    ]
    return [row for row in rows if row.network == network] or [row for row in rows if not row.network]


def method_key(recipe: Recipe) -> str:
    """What the table calls the method of a recipe.

    The method's name, but `joint` for fine-tuning in one step and `idrnet` for that with IDRNet; `sdr+mib` for SDR on MiB;
    with `-m` for a replay memory.

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
    return f"{name}-m" if recipe.scenario.memory else name


def network_key(recipe: Recipe) -> str:
    """What the table calls the network of a recipe.

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
