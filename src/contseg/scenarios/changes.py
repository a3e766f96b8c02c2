"""Differences between the saved plan of a run and the plan of its current data, in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from contseg.data.classes import class_differences

ROLES = {"train": "training", "val": "validation", "test": "test", "memory": "memory"}


def plan_changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the differences of the data, the most important first; empty if there are none.

    Args:
        saved: a plan as written by `Plan.to_json`. If its steps have no `digests` (written by an earlier version), only
            classes and numbers of images and pixels are compared, see `is_comparable`.
        now: the plan of the current data, in the same form.

    Raises:
        KeyError, TypeError: `saved` is not a plan.
    """
    classes = class_differences(saved["class_names"], now["class_names"])
    found = [f"class {number} was {old}, and is {new}" for number, old, new in classes]
    if len(saved["steps"]) != len(now["steps"]):
        return [*found, f"there were {len(saved['steps'])} steps, and are {len(now['steps'])}"]
    for before, after in zip(saved["steps"], now["steps"], strict=True):
        found += _step(before, after, now["class_names"])
    if not found and is_comparable(saved) and saved["hash"] != now["hash"]:
        found.append(f"the plan was {saved['hash']}, and is {now['hash']}")  # ids of classes, or the kind of background
    return found


def is_comparable(saved: Mapping[str, Any]) -> bool:
    """Whether a saved plan has the digests to detect every change that the hash covers."""
    return all("digests" in step for step in saved["steps"])


def _step(before: Mapping[str, Any], after: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    index = after["index"]
    for role, word in ROLES.items():
        was, is_ = before[f"{role}_images"], after[f"{role}_images"]
        if was != is_:
            yield f"step {index} had {was} {word} images, and has {is_}"
            continue
        old, new = ({kind: by.get(role) for kind, by in step.get("digests", {}).items()} for step in (before, after))
        differ = [kind for kind in old if old[kind] != new.get(kind)]
        if "images" in differ:
            yield f"the {word} images of step {index} are others, or in another order"
            continue
        pixels = _pixels(before, after, role, names)
        if pixels or {"labels", "masks"} & {*differ}:
            yield f"the masks of the {word} images of step {index} changed{pixels}"
        if "saliency" in differ:
            yield f"the saliency maps of the {word} images of step {index} changed"
        if "label_map" in differ:
            yield f"the label map of the {word} images of step {index} changed"


def _pixels(before: Mapping[str, Any], after: Mapping[str, Any], role: str, names: Sequence[str]) -> str:
    """The first class whose number of pixels differs; "" if all are equal, or pixels are not counted for this role."""
    key = f"{role}_pixels"
    if key not in after or len(before[key]) != len(after[key]):
        return ""
    for name, was, is_ in zip(names, before[key], after[key], strict=False):
        if was != is_:
            return f" ('{name}' had {was} pixels, and has {is_})"
    return ""
