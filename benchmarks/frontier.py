"""Every method on five protocols, three class orders each; writes docs/frontier.md.

    python -m benchmarks.frontier                                              # all rows; goes on where it was stopped
    python -m benchmarks.frontier --rows voc/pyramid,voc/mib --seeds 0         # some of it; the page still shows all
    python -m benchmarks.frontier --only-table                                 # the page of what is finished

Seed k also selects class order k (domain order k in steps by domain). Sizes and epochs are small, so that all runs take
under 90 minutes on two cores. Everything lives in `--out`, except the images of VOC (`VOC`); delete both to begin again.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.frontier_page import write_frontier
from benchmarks.table_command import Table, main
from contseg.data.datasets.globe import Globe
from contseg.data.fake import write_fake
from contseg.recipes.read import recipe_names
from contseg.sweeps.cells import Row

DEFAULT = "pyramid"
"""The method that `contseg extend` uses by default."""

VOC = Path("runs") / "frontier-voc" / "VOC2012"
IMAGES = {"train": 320, "test": 80}

METHODS = {
    "pyramid": "Pyramid",
    "gaussian": "Gaussian",
    "finetune": "finetune",
    "frozen": "frozen",
    "dft": "DFT*",
    "ewc": "EWC",
    "pi": "PI",
    "rw": "RW",
    "lwf": "LwF",
    "lwf-mc": "LwF-MC",
    "ilt": "ILT",
    "mib": "MiB",
    "plop": "PLOP",
    "rcil": "RCIL",
    "reminder": "REMINDER",
    "sdr": "SDR on MiB",
    "ucd": "UCD",
    "ssul": "SSUL",
    "idec": "IDEC",
    "lag": "LAG",
    "dkd": "DKD",
    "star": "STAR",
    "adapter": "Adapter",
    "mbs": "MBS",
    "barm": "BARM",
    "cfsseg": "CFSSeg",
}
CLOSED_FORM = ("pyramid", "gaussian", "cfsseg")
LONGER = "mib-longer"
"""The best gradient method with more epochs, to see how much the short runs of this page cost."""
JOINT = {"joint": "joint training", "joint-features": "joint, same head"}
"""Upper bounds: `joint-features` is the default method with all labels at once."""

UNKNOWN = ("ssul", "idec", "lag")
WITHOUT_BACKGROUND = ("dkd", "star", "adapter")
BY_CLASS_ONLY = ("frozen", "dft", "lwf-mc", "reminder", "barm", "mbs", *UNKNOWN, *WITHOUT_BACKGROUND)
"""Methods that need new classes in every later step."""
OF_THE_BACKBONE = ("ilt", "sdr")
"""Methods whose own terms reach the backbone alone; where it is frozen, they are other methods of this page."""
OF_A_RESNET = ("rcil",)
"""Methods that double the blocks of a ResNet."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Data, steps and sizes of a section of the page.

    Args:
        recipes: name of the packaged recipes, with {} in the place of the method.
        epochs: of step 0 and of each later step.
        overrides: of every recipe.
        steps: overrides of every recipe but the upper bounds, which learn all steps at once.
        longer: epochs of the row `LONGER`, if there is one.
        by_method: further overrides of some methods.
        scored_as: the split whose class groups are scored in the upper bounds; None with steps by domain.
        order: the overrides of a seed.
        methods: that can learn these steps.
    """

    recipes: str
    epochs: tuple[int, int]
    overrides: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    longer: tuple[int, int] | None = None
    by_method: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scored_as: str | None = None
    order: Callable[[int], tuple[str, ...]] = lambda seed: (f"scenario.order=seed:{seed}",)
    methods: Sequence[str] = tuple(METHODS)

    def rows(self, prefix: str) -> dict[str, Row]:
        """All methods and both upper bounds."""
        rows = {name: self._row(name, self.epochs) for name in self.methods}
        if self.longer is not None:
            rows[LONGER] = replace(self._row("mib", self.longer), label="MiB, more epochs")
        rows |= {name: self._joint(name) for name in JOINT}
        return {f"{prefix}/{name}": row for name, row in rows.items()}

    def _row(self, method: str, epochs: tuple[int, int]) -> Row:
        recipe, changes = self._recipe(method)
        changes = (*changes, *self.by_method.get(method, ()), *self.overrides, *self.steps)
        first, later = epochs[0], 0 if method in CLOSED_FORM else epochs[1]
        return Row(METHODS[method], recipe, (*changes, f"training.epochs=[{first}, {later}]"), by_seed=self.order)

    def _recipe(self, method: str) -> tuple[str, tuple[str, ...]]:
        """The packaged recipe of a method; without one, that of fine-tuning and what differs."""
        own = self.recipes.format(method)
        if own in recipe_names():
            return own, ()
        return self.recipes.format("finetune"), (f"method.name={method}",)

    def _joint(self, name: str) -> Row:
        recipe, changes = self._recipe(DEFAULT if name == "joint-features" else "finetune")
        epochs = self.epochs[0] if name == "joint-features" else sum(self.epochs)
        offline = ("scenario.split=offline", f"training.epochs={epochs}")
        if self.scored_as:
            offline = (*offline, f"scenario.scored_as={self.scored_as}")
        return Row(JOINT[name], recipe, (*changes, *self.overrides, *offline), by_seed=self.order)


def domains_of(seed: int) -> tuple[str, ...]:
    """The continents in an order that depends on the seed."""
    shuffled = random.Random(seed).sample(Globe.domains, len(Globe.domains))
    return (f"scenario.domains=[{', '.join(shuffled)}]",)


ONE_VS_REST = ("scenario.policy=ssul", "network.decision=sigmoid")
CONSTANT = ("network.decision=sigmoid", "network.head=deeplabv3-dkd", "network.head.width=64")
OF_BARM = ("network.decision=sigmoid", "network.head=deeplabv3-barm", "network.head.width=64")
GLOBE_METHODS = {
    "ewc": ("method.importance=20",),  # at the rate of later steps, the published 500 diverges
    "pi": ("method.importance=20",),
    "rw": ("method.importance=10",),
    "ssul": ONE_VS_REST,
    "lag": ONE_VS_REST,
    "idec": (*ONE_VS_REST, "network.head=deeplabv3-ssul", "network.head.width=64"),  # distils its pyramids
    "dkd": (*CONSTANT, "network.background=auxiliary"),
    "star": (*CONSTANT, "network.background=constant"),
    "adapter": (*CONSTANT, "network.background=constant"),
    "mbs": ("network.head=mask-transformer", "network.head.width=64"),
    "barm": (*OF_BARM, "network.background=residual"),
    "cfsseg": (*CONSTANT, "method.expansion=512"),
}
LAND_COVER = Protocol(
    recipes="globe/{}_4-1",
    epochs=(6, 3),
    longer=(12, 8),
    by_method=GLOBE_METHODS,
    methods=[name for name in METHODS if name not in (*OF_THE_BACKBONE, *OF_A_RESNET)],
    scored_as="4-1",
)
VOC_SIZE = ("network.backbone=resnet18", "network.width=32", "data.crop=64", "training.workers=0", "data.test_crop=null")
PROTOCOLS = {
    "overlapped": ("Land cover 4-1, overlapped", LAND_COVER),
    "partitioned": ("Land cover 4-1, partitioned", replace(LAND_COVER, steps=("scenario.setting=partitioned",))),
    "domain": (
        "Land cover, two continents and then one by one",
        replace(
            LAND_COVER,
            epochs=(12, 8),  # each image is in one step only, so that runs are short
            longer=None,
            overrides=("scenario.by=domain",),
            steps=("scenario.split=2-1",),
            scored_as=None,
            order=domains_of,
            methods=[name for name in LAND_COVER.methods if name not in BY_CLASS_ONLY],
        ),
    ),
    "digits": ("Digits 5-1", Protocol(recipes="digits/{}_5-1", epochs=(9, 2), longer=(18, 12), scored_as="5-1")),
    "voc": (
        "Synthetic VOC 15-1",
        Protocol(
            recipes="voc/{}_15-1_overlapped",
            epochs=(14, 7),
            overrides=(*VOC_SIZE, "training.lr_later=0.005", f"data.path={VOC}"),
            by_method={
                "ewc": ("method.importance=100",),
                "pi": ("method.importance=100",),
                "rw": ("method.importance=50",),
                "mbs": ("network.head.width=64", "data.resize=null"),
            },
            scored_as="15-1",
        ),
    ),
}


def with_images(out: Path) -> list[str]:
    """Write the synthetic VOC images, once."""
    if not VOC.is_dir():
        write_fake("voc", VOC, **IMAGES)
    return []


def sections() -> Mapping[str, Mapping[str, Row]]:
    """Title to rows of every protocol."""
    return {title: protocol.rows(prefix) for prefix, (title, protocol) in PROTOCOLS.items()}


TABLE = Table(
    command="make frontier",
    docs=Path("docs") / "frontier.md",
    title="The frontier: every method on five protocols",
    caption=(
        "mIoU in %, background not counted, mean ± standard deviation over three seeds, each with a class order of its own"
        " (by\ndomain: an order of the continents). Old: classes (continents) of step 0; new: all later ones; hIoU: their"
        " harmonic\nmean; worst order: the lowest hIoU of the three. % of joint: `all`, against the default method with all"
        " labels at\nonce. s per step: later steps with their evaluation; trained: parameters that the last step updates by"
        " gradients;\nMB: what the method stores for the next step besides the model. No images are stored. Epochs are few"
        ", so that\nall runs fit into 90 minutes; gradient methods gain from more ([digits](digits-results.md),\n"
        "[synthetic VOC](voc-synthetic-results.md))."
    ),
    sections=sections(),
    prepare=with_images,
    write=write_frontier,
)

if __name__ == "__main__":
    main(TABLE)
