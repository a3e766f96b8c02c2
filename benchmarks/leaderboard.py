"""Methods on digits and on synthetic VOC, three seeds and up to three class orders; writes docs/leaderboard.md.

    python -m benchmarks.leaderboard                                     # all rows; goes on where it was stopped
    python -m benchmarks.leaderboard --rows digits-mib,digits-plop       # some of it; the page still shows all
    python -m benchmarks.leaderboard --only-table                        # the page of what is finished; a dash for the rest

The rows are those of `digits_table` and `voc_table`, with smaller networks: the seeds of the field and its baselines in
their own order and in two others, later methods in their own. Runs live in `--out`, images in runs/leaderboard. Results
of finished runs are kept in benchmarks/leaderboard, and no run that has one is trained; delete all three to begin again.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks import digits_table, mask_rows, voc_table
from benchmarks.table_command import FORGETTING, Table, main
from contseg.sweeps.cells import OWN, Row

SEEDS = (0, 1, 2)
ORDERS = (OWN, "seed:1", "seed:2")
OUT = Path("runs") / "leaderboard"
KEPT = Path("benchmarks") / "leaderboard"

LATER = (
    "dft", "mib-ewf", "plop-ewf", "rcil", "reminder", "ucd", "dkd", "dkd-m", "star", "star-m", "adapter", "mbs", "barm",
    "cfsseg",
)  # fmt: skip
"""Rows with their own order alone: three runs."""

# Up to nine runs per row, so each has about a third of the operations of a run of the two tables.
STRIDE = ("network.backbone.output_stride=16",)
WITHOUT_POOLING = ("ssul", "ssul-m", "idec", "lag", "dkd", "dkd-m", "star", "star-m", "adapter", "barm", "cfsseg", "mbs")
"""Rows whose head pools the whole map."""
NARROW = ("network.backbone.width=16", "network.width=16")


def in_orders(rows: Mapping[str, Row], prefix: str, words: Mapping[str, tuple[str, ...]]) -> dict[str, Row]:
    """Rows with all seeds, and with the class orders that they have here.

    Args:
        words: overrides of each row, in addition to its own.
    """
    return {
        f"{prefix}{name}": replace(row, seeds=SEEDS, orders=orders_of(name), overrides=with_words(row, words[name]))
        for name, row in rows.items()
    }


def with_words(row: Row, words: tuple[str, ...]) -> tuple[str, ...]:
    """The overrides of a row and more, without those that are replaced."""
    keys = {word.partition("=")[0] for word in words}
    return (*(one for one in row.overrides if one.partition("=")[0] not in keys), *words)


def orders_of(name: str) -> tuple[str, ...]:
    """The class orders of a row of either table."""
    return (OWN,) if name.partition("_")[0] in LATER else ORDERS


def smaller_digits(name: str) -> tuple[str, ...]:
    """Overrides that make the network of a row of the digits smaller."""
    return STRIDE if name in WITHOUT_POOLING or name.startswith("idrnet") else (*STRIDE, "network.head.pooling_size=6")


def smaller_voc(name: str) -> tuple[str, ...]:
    """Overrides that make the network and the training of a row of VOC smaller."""
    later = 0 if name.partition("_")[0] in voc_table.CLOSED_FORM else 40
    return *NARROW, f"training.epochs=[20, {later}]"


def sections() -> dict[str, dict[str, Row]]:
    """All rows by section."""
    digits = {
        f"Digits 5-1: {title}": in_orders(rows, "digits-", {name: smaller_digits(name) for name in rows})
        for title, rows in digits_table.SECTIONS.items()
    }
    tree = f"data.path={OUT / voc_table.TREE}"
    voc = {
        f"Synthetic VOC {split}, overlapped": in_orders(rows, "voc-", {name: (tree, *smaller_voc(name)) for name in rows})
        for split in voc_table.SEEDS
        for rows in [voc_table.rows_of(split)]
    }
    return digits | voc | masks(tree)


def masks(tree: str) -> dict[str, dict[str, Row]]:
    """Rows of masks, and those of pixels on the globe, in their own order only.

    Args:
        tree: override that says where the images of VOC are.
    """
    rows = {
        f"Digits 5-1: {mask_rows.TITLE}": ("digits-masks-", mask_rows.digits()),
        f"Synthetic VOC 15-5, overlapped: {mask_rows.TITLE}": ("voc-masks-", mask_rows.synthetic_voc(tree)),
        f"Globe 4-1: {mask_rows.TITLE}": ("globe-masks-", mask_rows.globe()),
        "Globe 4-1: pixels, a frozen trunk with weights of ImageNet": ("globe-", mask_rows.globe_by_pixel()),
    }
    return {title: {f"{prefix}{name}": row for name, row in found.items()} for title, (prefix, found) in rows.items()}


def with_images(out: Path) -> list[str]:
    """Write the images of VOC, once, where its rows find them; those of digits accept no path."""
    voc_table.with_images(OUT)
    return []


TABLE = Table(
    command="make leaderboard",
    docs=Path("docs") / "leaderboard.md",
    title="Leaderboard: three seeds, three class orders",
    caption=(
        "Old: the classes of step 0; new: the classes of all later steps. The class orders are the recipe's own, `seed:1`\n"
        "and `seed:2`; the deviation is over all runs of a row. Rows with n = 3 are in the recipe's own order; what is\n"
        "compared with fine-tuning are runs of one seed and one order. A dash has not been run yet.\n"
        f"{FORGETTING}\n\nRows are those of the [digits](digits-results.md) and of the"
        " [synthetic VOC](voc-synthetic-results.md) tables, with\nsmaller networks: output stride 16 for the digits;"
        " narrow networks (width 16) and 20 and 40 epochs for VOC. Rows of\nmasks have a vision transformer"
        " with four blocks of 64 channels, from random weights. Finished\nruns are kept with their confusion matrices in"
        " `benchmarks/leaderboard`."
    ),
    sections=sections(),
    prepare=with_images,
    kept=KEPT,
)

if __name__ == "__main__":
    main(TABLE)
