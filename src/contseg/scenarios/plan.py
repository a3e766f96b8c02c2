"""The plan of a scenario: images per step, pixels per class, and a hash that names it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from contseg.scenarios.batch import Samples
from contseg.scenarios.scenario import Scenario


@dataclass(frozen=True)
class StepPlan:
    """One row of a plan. Pixels are counted in the full-size masks, per class of the dataset table."""

    index: int
    new_classes: tuple[str, ...]
    train_images: int
    val_images: int
    test_images: int
    train_pixels: tuple[int, ...]
    test_pixels: tuple[int, ...]
    matches: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What every step uses, small enough to be written beside every result.

    `hash` covers names, label maps and order of every step: two runs with one hash saw the same data with the same labels.
    """

    dataset: str
    split: str
    setting: str
    policy: str
    order: tuple[int, ...]
    class_names: tuple[str, ...]
    steps: tuple[StepPlan, ...]
    hash: str

    def to_json(self) -> str:
        """The plan as indented JSON."""
        return json.dumps(asdict(self), indent=1)


def make_plan(scenario: Scenario) -> Plan:
    """The plan of a scenario.

    Example:
        >>> from contseg.data.digits import Digits
        >>> from contseg.scenarios.scenario import ScenarioOptions
        >>> plan = make_plan(Scenario(Digits(train=40, test=10), ScenarioOptions(split="offline")))
        >>> plan.steps[0].train_images, len(plan.hash)
        (40, 12)
    """
    classes, options = scenario.dataset.classes, scenario.options
    train_row = {name: row for row, name in enumerate(scenario.train_presence.names)}
    test_row = {name: row for row, name in enumerate(scenario.test_presence.names)}
    rows = []
    for step in scenario:
        train_rows = np.array([train_row[name] for name in step.train.names], dtype=int)
        test_rows = np.array([test_row[name] for name in step.test.names], dtype=int)
        rows.append(
            StepPlan(
                index=step.index,
                new_classes=tuple(classes.names[classes.ids.index(number)] for number in step.new_classes),
                train_images=len(step.train),
                val_images=len(step.val),
                test_images=len(step.test),
                train_pixels=tuple(scenario.train_presence.pixels_of(classes.ids, train_rows).tolist()),
                test_pixels=tuple(scenario.test_presence.pixels_of(classes.ids, test_rows).tolist()),
                matches=published_matches(step.train.names),
            )
        )
    digest = hashlib.sha256()
    for step in scenario:
        for samples in (step.train, step.val, step.test):
            digest.update(samples_digest(samples).encode())
    return Plan(
        dataset=scenario.dataset.name,
        split=options.split,
        setting=options.setting,
        policy=options.policy,
        order=scenario.order,
        class_names=classes.names,
        steps=tuple(rows),
        hash=digest.hexdigest()[:12],
    )


def samples_digest(samples: Samples) -> str:
    """SHA-256 over the names and the label map of samples."""
    digest = hashlib.sha256("\n".join(samples.names).encode())
    digest.update(samples.lookup.tobytes())
    return digest.hexdigest()


def published_matches(names: tuple[str, ...]) -> tuple[str, ...]:
    """Published selections made of exactly these names in this order, such as "voc 15-1 step 1 overlapped"."""
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
