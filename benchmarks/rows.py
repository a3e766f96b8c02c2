"""The rows of `make bench`: what is measured, the bar that it must reach, and where its measurement is.

Measurements are in the modules of `MODULES`, each with one or several of these dictionaries, by the name of the row:

    ROWS      name -> function that returns (ours, yardstick), two functions to run in turn
    MEMORY    name -> function that returns MiB
    SECONDS   name -> function that returns seconds
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

MODULES = (
    "losses_bench",
    "memory_bench",
    "loading_bench",
    "evaluation_bench",
    "features_bench",
    "startup_bench",
    "steps_bench",
    "closed_form_bench",
    "networks_bench",
    "masks_bench",
    "other_bench",
)
"""Files of this folder. If two have a row of one name, the first one counts."""
TABLES = {"ratio": "ROWS", "share": "ROWS", "MiB": "MEMORY", "s": "SECONDS"}
"""Where the measurement of each unit is."""

Unit = Literal["ratio", "share", "MiB", "s"]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: of the row, for `--rows`.
        work: what is measured.
        yardstick: what it is compared with; "" for an absolute figure.
        bar: the value to reach; None for a row without one.
        unit: `ratio` (our time / the yardstick's), `share` (the yardstick's time / ours, where more is better), or a unit.
        official: the value of the official code; "" if it was not measured.
        on_one_core: whether both run with one thread and their processor time counts, which other programs do not change.
        pairs: of runs.
        warm: whether both run once before they are timed; not where a run takes many minutes.
        less: subtracted from the ratio, 1 where the yardstick is a part of ours.
        note: what a reader should know; what was tried and what the limit is, for a row that is short of its bar.
    """

    name: str
    work: str
    yardstick: str = ""
    bar: float | None = None
    unit: Unit = "ratio"
    official: str = ""
    on_one_core: bool = False
    pairs: int = 5
    warm: bool = True
    less: float = 0.0
    note: str = ""

    @property
    def more_is_better(self) -> bool:
        """The direction of the bar."""
        return self.unit == "share"

    def verdict(self, value: float | None) -> str:
        """`ok`, `short`, or "" for a row that has no bar or was not measured.

        Example:
            >>> Row("a", "work", bar=1.06).verdict(1.02), Row("b", "work", bar=0.36, unit="share").verdict(0.31)
            ('ok', 'short')
        """
        if value is None or self.bar is None:
            return ""
        return "ok" if (value >= self.bar if self.more_is_better else value <= self.bar) else "short"


STEP_NOTES = {
    "sdr": (
        "1.055 and 1.061 in two series. On one thread the losses take 150 and their backward 104 of about 9000 ms, of which"
        " the terms of MiB are 155 together."
    ),
    "lag": (
        "relevance maps are gradients of the teacher's and the student's classifiers for four classes, differentiated again:"
        " convolutions of 3 x 3 that the bare networks lack, 0.85 of 9.3 s on one thread. The losses without them take less"
        " than 0.1 s."
    ),
}
CE = "up-sampling + cross-entropy"
NETWORKS_321 = "step of the bare networks, ResNet-101, crop 321, batch 2"
NETWORKS_512 = "bare networks, ResNet-50, crop 512, batch 2"
OWN_NETWORKS_512 = "bare networks that it needs, crop 512, batch 2"
BARRED = (
    Row("mib-losses", "MiB losses, 151 classes, 512 x 512, batch 2, up-sampling included", CE, 1.6, official="11.2"),
    Row("mib-memory", "peak extra memory of the same", bar=320, unit="MiB", official="2025"),
    Row("plop-losses", "PLOP losses at full size: pseudo labels, factor, cross-entropy; same setting", CE, 1.8),
    Row("plop-memory", "peak extra memory of the same", bar=320, unit="MiB"),
    Row("pod", "local POD over five maps, forward + backward", "mean squared error of the same maps", 2.0, official="14.6"),
    Row("pod-memory", "peak extra memory of the same", bar=20, unit="MiB", official="170"),
    Row("idec-losses", "IDEC losses: four pyramids, ARCL, BCE, pseudo labels", NETWORKS_321, 0.10),
    Row("sdr-losses", "SDR losses", NETWORKS_321, 0.08),
    Row(
        "idrnet-step",
        "IDRNet training step, both passes (FCN, ResNet-50-D8, 150 classes, crop 512, batch 1)",
        "the same head without it",
        1.35,
    ),
    Row("sample", "training sample, one core", "Pillow JPEG decode", 0.36, "share", "0.02-0.04", on_one_core=True),
    *(
        Row(
            f"{name}-step", f"whole training step of {title}, 21 classes, losses at full size", NETWORKS_512, 1.06,
            note=STEP_NOTES.get(name, ""),
        )
        for name, title in {
            "finetune": "finetune", "mib": "MiB", "plop": "PLOP", "sdr": "SDR", "idec": "IDEC", "lag": "LAG",
        }.items()
    ),
    Row(
        "evaluation", "evaluation of 512 x 512, 151 classes: all but the forward pass", "forward pass, ResNet-50-D8", 0.08,
        less=1.0,
    ),
    Row("windows", "sliding window over 1194 x 1194, 151 classes", "9 forward passes of one window", 1.10),
    Row(
        "many-windows", "sliding window over 6000 x 6000, 151 classes", "324 forward passes of one window", 1.10,
        on_one_core=True, pairs=1, warm=False, note="one pair on one thread, 39 minutes",
    ),
    *(
        Row(f"{name}-epoch", f"epoch after the first one: {title}", "epoch of the full network", 0.15)
        for name, title in {"frozen": "frozen", "ssul": "SSUL", "idec-released": "IDEC released"}.items()
    ),
    *(
        Row(
            f"{name}-step", f"whole training step of {title}, 21 classes, losses at full size", OWN_NETWORKS_512, 1.15,
            note=STEP_NOTES.get(name, ""),
        )
        for name, title in {
            "dft": "DFT*", "rcil": "RCIL", "reminder": "REMINDER", "ucd": "UCD", "dkd": "DKD", "star": "STAR",
            "adapter": "Adapter", "mbs": "MBS (ViT-B)", "barm": "BARM",
        }.items()
    ),
    Row("merge-seconds", "merging the branches of RCIL, ResNet-101", bar=2, unit="s"),
    Row(
        "cfsseg-step", "step of CFSSeg with 8 images of 512 x 512, ResNet-50, 8192 dimensions",
        "products phi^T phi of its cells, float64", 2.0, pairs=3,
    ),
    Row("gaussian-pass", "pass after the first one: gaussian", "pass of the full network", 0.15),
    Row(
        "lean-memory", "MiB, ResNet-101, crop 512, batch 24, 151 classes, `training.memory: lean`, counted", bar=24576,
        unit="MiB",
    ),
    Row("help-seconds", "`contseg --help`", bar=0.4, unit="s"),
    Row("first-batch-seconds", "first training batch after launch, presence table in the cache", bar=6, unit="s"),
    Row("finished-seconds", "resume of a finished run of 11 steps", bar=3, unit="s"),
    Row(
        "mask-criterion", "matching and criterion of all predictions, 100 queries, 150 classes, crop 256, batch 2",
        "training step of EoMT-S with them", 0.25,
    ),
    Row("growth-seconds", "growing EoMT over DINOv2-S from 150 classes by one", bar=0.05, unit="s"),
)  # fmt: skip
OTHERS = (
    Row("full-memory", "the same with `training.memory: full`, counted", unit="MiB"),
    Row("deciding-memory", "peak extra memory of the classes of 512 x 512 pixels from 151 logits", unit="MiB"),
    Row("small-windows-memory", "peak extra memory of sliding windows over 1877 x 1877 pixels", unit="MiB"),
    Row(
        "windows-memory",
        "the same over 3583 x 3583 pixels",
        unit="MiB",
        note="About four bytes for each further pixel of the scene.",
    ),
    Row("short-epochs", "three epochs of five batches, a worker that stays", "an epoch of fifteen batches"),
    Row("presence", "presence table of 20,000 masks", "Pillow PNG decode, all cores", unit="share"),
    *(
        Row(f"idrnet-{head}", f"IDRNet over {title}, inference at 512 x 512, ResNet-50-D8", f"{title} alone")
        for head, title in {"fcn": "FCN", "pspnet": "PSPNet", "deeplabv3": "DeepLabV3", "upernet": "UperNet"}.items()
    ),
    Row("presence-again-seconds", "the same presence table once more, from the cache", unit="s"),
    Row("plan-seconds", "plan of ADE20K 100-5 (11 steps) from presence tables", unit="s"),
)
ROWS = {row.name: row for row in (*BARRED, *OTHERS)}


def measurement(row: Row) -> Callable[[], Any] | None:
    """The function that measures a row, see above; None if no module has it."""
    for module in _present():
        found: Mapping[str, Callable[[], Any]] = getattr(module, TABLES[row.unit], {})
        if row.name in found:
            return found[row.name]
    return None


def unlisted() -> dict[str, set[str]]:
    """Measurements of the modules that no row names: module -> names; empty if all is well."""
    found = {}
    for module in _present():
        names = {
            (name, table) for table in set(TABLES.values()) for name in getattr(module, table, {})
        } - {(row.name, TABLES[row.unit]) for row in ROWS.values()}  # fmt: skip
        if names:
            found[module.__name__] = {name for name, _ in names}
    return found


def _present() -> Iterator[Any]:
    for name in MODULES:
        if find_spec(f"benchmarks.{name}") is not None:
            yield import_module(f"benchmarks.{name}")
