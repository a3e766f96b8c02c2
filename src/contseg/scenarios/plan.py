"""The plan of a scenario: images per step, pixels per class, and a hash that identifies it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from contseg.data.dataset import SUBSETS, repeated_names
from contseg.digest import sha256
from contseg.errors import counted
from contseg.scenarios.digests import step_digests
from contseg.scenarios.scenario import Scenario
from contseg.scenarios.step import Step

HASHED = ("images", "label_map", "labels", "saliency")
"""Kinds of digests that a plan's hash covers."""


@dataclass(frozen=True)
class StepPlan:
    """The plan of one step.

    Attributes:
        index, new_classes, domains: as of the `Step`.
        train_images, val_images, test_images, memory_images: numbers of images.
        memory_megabytes: size of the memory's image and mask files, in 10^6 bytes.
        train_pixels, test_pixels: pixels of each class of the dataset's table, in full-size masks.
        train_holding: training images that contain each class of the dataset's table.
        matches: published selections that equal the training images.
        digests: digests of the step's data, by kind (`images` in order, `label_map`, `labels` as pixels per class in each
            image, `masks`, `saliency`) and role (`train`, `val`, `test`, `memory`), see `contseg.scenarios.digests`.
    """

    index: int
    new_classes: tuple[str, ...]
    domains: tuple[str, ...]
    train_images: int
    val_images: int
    test_images: int
    memory_images: int
    memory_megabytes: float
    train_pixels: tuple[int, ...]
    test_pixels: tuple[int, ...]
    train_holding: tuple[int, ...]
    matches: tuple[str, ...]
    digests: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Plan:
    """The data of every step, small enough to be stored with every result.

    `hash` covers the classes by name, and for every step the names of the images in order, the label map, the pixels of each
    class in each image, and the saliency maps. It does not cover the colours of images or the positions of classes; the
    `masks` digests of the steps cover the latter, which a resume compares.
    `warnings` are findings that a user should know before training.
    """

    dataset: str
    by: str
    split: str
    setting: str
    policy: str
    order: tuple[int, ...]
    class_names: tuple[str, ...]
    steps: tuple[StepPlan, ...]
    warnings: tuple[str, ...]
    hash: str

    def to_json(self) -> str:
        """The plan as indented JSON."""
        return json.dumps(asdict(self), indent=1)


def make_plan(scenario: Scenario, batch: int | None = None) -> Plan:
    """The plan of a scenario.

    Args:
        batch: images per update, to warn about steps with fewer.

    Example:
        >>> from contseg.data.datasets.digits import Digits
        >>> from contseg.scenarios.options import ScenarioOptions
        >>> plan = make_plan(Scenario(Digits(train=40, test=10), ScenarioOptions(split="offline")))
        >>> plan.steps[0].train_images, len(plan.hash)
        (40, 12)
    """
    classes, options = scenario.dataset.classes, scenario.options
    steps = tuple(_plan_step(scenario, step) for step in scenario)
    digest = sha256(
        json.dumps([classes.names, classes.ids, classes.background]),
        *(json.dumps({kind: step.digests[kind] for kind in HASHED}, sort_keys=True) for step in steps),
    )
    return Plan(
        dataset=scenario.dataset.name,
        by=options.by,
        split=options.split,
        setting="lists" if options.lists else options.setting,
        policy=options.policy,
        order=scenario.order,
        class_names=classes.names,
        steps=steps,
        warnings=tuple(plan_warnings(scenario, batch)),
        hash=digest[:12],
    )


def _plan_step(scenario: Scenario, step: Step) -> StepPlan:
    classes = scenario.dataset.classes
    train = scenario.train_presence.pixels[scenario.train_presence.rows_of(step.train.names)]
    test = scenario.test_presence.pixels[scenario.test_presence.rows_of(step.test.names)]
    remembered = {name for part in step.memory for name in part.names}
    files_ = {path for name in remembered for path in _files_of(scenario, name)}
    return StepPlan(
        index=step.index,
        new_classes=tuple(classes.names[classes.ids.index(number)] for number in step.new_classes),
        domains=step.domains,
        train_images=len(step.train),
        val_images=len(step.val),
        test_images=len(step.test),
        memory_images=sum(map(len, step.memory)),
        memory_megabytes=round(sum(path.stat().st_size for path in files_) / 1e6, 3),
        train_pixels=tuple(train.sum(axis=0).tolist()),
        test_pixels=tuple(test.sum(axis=0).tolist()),
        train_holding=tuple((train > 0).sum(axis=0).tolist()),
        matches=published_matches(step.train.names),
        digests=step_digests(scenario, step),
    )


def _files_of(scenario: Scenario, name: str) -> tuple[Path, Path]:
    return scenario.dataset.image_path(name), scenario.dataset.mask_path(name)


def plan_warnings(scenario: Scenario, batch: int | None = None) -> Iterator[str]:
    """Warnings before training, one line each; no file is read.

    These are the dataset's notes, images that are listed twice, short steps, tests on training images, and classes that
    cannot be measured.

    Args:
        batch: images per update, to warn about steps with fewer.
    """
    yield from scenario.dataset.notes
    for subset in SUBSETS:
        repeated = repeated_names(scenario.dataset.names(subset))
        if repeated:
            twice = f"{counted(len(repeated), 'image')} more than once, such as '{repeated[0]}'"
            yield f"the {subset} list names {twice}: each counts once"
    short = {step.index: len(step.train) for step in scenario if batch and 0 < len(step.train) < batch}
    if short:
        steps, least = ", ".join(map(str, short)), min(short.values())
        has = f"steps {steps} have as few as" if len(short) > 1 else f"step {steps} has only"
        yield f"{has} {counted(least, 'training image')}; images are repeated to fill a batch of {batch}"
    trained: set[str] = set()
    for step in scenario:
        trained |= {*step.train.names, *step.val.names}
        leaked = trained & set(step.test.names)
        if leaked:
            yield (
                f"step {step.index} is tested on {len(leaked)} of its {len(step.test)} images that it or an earlier step is"
                f" trained on, such as '{min(leaked)}': test metrics are too high"
            )
    last = scenario[-1]
    pixels = scenario.test_presence.pixels[scenario.test_presence.rows_of(last.test.names)].sum(axis=0)
    table = scenario.dataset.classes
    untested = [
        name
        for name, number, count in zip(table.names, table.ids, pixels, strict=True)
        if not count and number in (table.foreground if table.background == "unscored" else table.ids)
    ]
    if untested:
        more = f" and {len(untested) - 8} more" if len(untested) > 8 else ""
        yield f"no test image contains {', '.join(untested[:8])}{more}: left out of every mean"


def published_matches(names: tuple[str, ...]) -> tuple[str, ...]:
    """Published selections with exactly these names in this order, such as "voc 15-1 step 1 overlapped"."""
    return published_selections().get(hashlib.sha1("\n".join(names).encode()).hexdigest(), ())


@cache
def published_selections() -> dict[str, tuple[str, ...]]:
    """Descriptions of published training selections by the SHA-1 of their names."""
    text = (files("contseg.scenarios") / "published_selections.json").read_text(encoding="utf-8")
    found: dict[str, tuple[str, ...]] = {}
    for row in json.loads(text)["rows"]:
        if row["mode"] == "train":
            setting = "overlapped" if row["overlap"] else "disjoint"
            label = f"{row['dataset']} {row['task']} step {row['step']} {setting}"
            found[row["sha1"]] = (*found.get(row["sha1"], ()), label)
    return found
