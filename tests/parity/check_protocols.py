"""Golden files of protocols: which images, which labels, which exemplars."""

import re
from dataclasses import replace

import numpy as np

from contseg.data.classes import ClassTable
from contseg.data.presence import Presence
from contseg.scenarios.memory import Exemplar, select_exemplars
from contseg.scenarios.orders import published_orders
from contseg.scenarios.policy import LabelPolicy
from contseg.scenarios.selection import limit, select
from contseg.scenarios.splits import parse_split
from tests.parity.goldens import claims

SPLIT_NAMES = {"15-5s": "15-1", "10-10s": "10-1", "50": "50-50"}
TABLES = {
    "voc": ClassTable.of([str(number) for number in range(21)]),
    "ade": ClassTable.of([str(number) for number in range(151)], background="unlabelled"),
    "isprs": replace(ClassTable.of([str(number) for number in range(5)]), void=(5,)),  # as released
}


@claims(r"(mib|plop|sdr)/protocol_.*")
def check_protocol(golden):
    dataset, split, *letter = golden.path.stem.removeprefix("protocol_").split("_")
    table, split = TABLES[dataset], SPLIT_NAMES.get(split, split)
    order, widths = _order_and_widths(golden, dataset, split, letter, table)
    ends = np.cumsum([0, *widths])
    checked = 0
    for name in golden.arrays:
        found = re.fullmatch(r"out_(disjoint|overlapped|sequential)_step(\d+)_(train|val|test)(_ignore_bg)?_masks", name)
        if not found:
            continue
        setting, step, role, ignore_background = found[1], int(found[2]), found[3], bool(found[4])
        new = order[ends[step] + 1 : ends[step + 1] + 1] if step else order[: ends[1] + 1]
        old = order[: ends[step] + 1] if step else ()
        masks = golden.arrays["in_masks_train" if role == "train" else "in_masks_val"]
        presence = _presence(masks, table)
        wanted = old + new if role == "test" else new
        rows = select(presence, wanted, old, setting if role == "train" else "overlapped")
        policy = LabelPolicy("plop" if golden.family == "plop" else "mib", ignore_background)
        labels = policy.lookup(table, order, new, old, role, setting)[masks[rows]]
        if f"out_{setting}_step{step}_{role}_index" in golden.arrays:
            golden.check(f"out_{setting}_step{step}_{role}_index", rows)
        golden.check(name, labels)
        checked += 1
    assert checked


def _order_and_widths(golden, dataset, split, letter, table):
    """Order and classes per step: by the file's name, and the same as its task table where it has one."""
    task = [tuple(golden.meta["task"][key]) for key in sorted(golden.meta.get("task", {}), key=int)]
    if not task:
        order = published_orders()[dataset, split, letter[0]] if letter else table.ids
        return order, parse_split(split, len(table) - 1)
    order = tuple(number for step in task for number in step)
    widths = tuple(len(step) - (index == 0) for index, step in enumerate(task))
    if (dataset, split, *letter) in published_orders():
        assert order == published_orders()[dataset, split, letter[0]]
    if not letter and re.fullmatch(r"\d+(-\d+)+", split):
        assert order == table.ids
        assert parse_split(split, len(table) - 1) == widths
    return order, widths


def _presence(masks: np.ndarray, table: ClassTable) -> Presence:
    pixels = np.stack([(masks == number).sum(axis=(1, 2)) for number in table.ids], axis=1)
    return Presence(tuple(str(row) for row in range(len(masks))), table.ids, pixels)


@claims(r"idec/label_mapping.*")
def check_label_mapping(golden):
    for case in golden.meta["cases"]:
        dataset, (split, *letter) = case["dataset"], case["task"].split("_")
        table = TABLES[dataset.lower()]
        order = published_orders()[dataset, split, letter[0]] if letter else table.ids
        widths = _widths_with_background(dataset, split, table)
        start, end = np.cumsum([0, *widths])[[case["step"], case["step"] + 1]]
        for role in ("train", "val", "test"):
            lookup = LabelPolicy("ssul").lookup(table, order, order[start:end], order[:start], role, "overlapped")
            golden.check(f"out_{role}_{case['name']}", lookup[golden.arrays[f"in_raw_{case['name']}"]])


def _widths_with_background(dataset, split, table):
    """ISPRS as released counts its id 0, a true class that plays the background; VOC and ADE20K do not."""
    if dataset == "ISPRS":
        return parse_split(split, len(table))
    first, *rest = parse_split(split, len(table) - 1)
    return (first + 1, *rest)


@claims(r"idec/memory_selection.*")
def check_memory_selection(golden):
    meta = golden.meta
    candidates = [Exemplar(name, 0, frozenset(classes)) for name, _, _, classes in meta["candidates"]]
    rng = np.random.RandomState(meta["numpy_seed"])
    chosen = select_exemplars(candidates, range(1, meta["prev_num_classes"]), meta["mem_size"], rng)
    assert [exemplar.name for exemplar in chosen] == meta["memory_list"]


@claims(r"lag/data_ratio.*")
def check_data_ratio(golden):
    for count, kept in zip(golden.meta["counts"], golden.meta["kept"], strict=True):
        for ratio, expected in zip(golden.meta["ratios"], kept, strict=True):
            assert limit(np.arange(count), ratio).tolist() == list(range(expected))
