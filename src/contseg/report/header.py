"""What was run: the title of a report, when, where and for how long, and the commands that repeat it."""

import json
import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from contseg.differences import differences, flat
from contseg.engine.run import Run
from contseg.errors import ContsegError, counted
from contseg.parsing import parse_yaml
from contseg.recipes.read import read_recipe
from contseg.recipes.recipe import Recipe
from contseg.report.comparison import packaged_recipe, protocol_of, recorded_recipe
from contseg.report.tables import Facts

LABELS = ("name", "note", "links", "based_on")
"""Keys of a recipe that a command need not repeat."""


def origin_of(run: Run) -> dict[str, Any]:
    """`method`, `protocol`, `command`, `seconds`, and `environment` of a run, as its folder records them."""
    recipe = recorded_recipe(run)
    return {
        "method": _method(recipe) if recipe else "",
        "protocol": protocol_of(run),
        "command": command_of(run, recipe),
        "seconds": sum(line.get("seconds", 0) for line in run.metrics() if line["kind"] == "step"),
        "environment": run.environment(),
    }


def _method(recipe: Recipe) -> str:
    if recipe.scenario.split == "offline" and recipe.method["name"] == "finetune":
        return "joint"
    return (
        recipe.method["name"]
        + (" (released)" if recipe.method.get("variant") == "released" else "")
        + (" with EWF" if recipe.method.get("fusion") else "")
    )


def title_of(runs: Mapping[str, Facts]) -> str:
    """The methods and the protocol of runs, or their numbers.

    Example:
        >>> plop, mib = ({"method": name, "protocol": "digits 5-1 overlapped"} for name in ("plop", "mib"))
        >>> title_of({"a": plop, "b": mib}), title_of({"a": plop})
        ('plop, mib on digits 5-1 overlapped', 'plop on digits 5-1 overlapped')
    """
    methods = list(dict.fromkeys(facts["method"] or name for name, facts in runs.items()))
    protocols = list(dict.fromkeys(facts["protocol"] for facts in runs.values()))
    named = ", ".join(methods) if len(methods) <= 4 else f"{len(methods)} methods"
    several = f" ({len(runs)} runs)" if len(runs) > len(methods) else ""
    return f"{named}{several} on {protocols[0] if len(protocols) == 1 else f'{len(protocols)} protocols'}"


def facts_line(runs: Mapping[str, Facts]) -> dict[str, str]:
    """Date, commit, device, time and plan of runs, each once; what was not recorded is left out."""
    environments = [facts["environment"] for facts in runs.values()]
    found = {
        "date": [_date(environment.get("date")) for environment in environments],
        "version": [environment.get("contseg", "") for environment in environments],
        "commit": [environment.get("commit", "") for environment in environments],
        "device": [_device(environment) for environment in environments],
        "time": [hours(sum(facts["seconds"] for facts in runs.values()))],
        "plan": [facts["plan"]["hash"] for facts in runs.values()],
    }
    each = {label: list(dict.fromkeys(text for text in texts if text)) for label, texts in found.items()}
    return {label: _few(texts) for label, texts in each.items() if texts}


def _few(texts: list[str]) -> str:
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def _date(text: str | None) -> str:
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d}" if text else ""
    except ValueError:
        return ""


def _device(environment: Mapping[str, Any]) -> str:
    if "device" not in environment:
        return ""
    ranks = environment.get("ranks", 1)
    return f"{counted(ranks, 'rank')} on {environment['device']}" if ranks > 1 else str(environment["device"])


def hours(seconds: float) -> str:
    """A time in the unit that suits it.

    Example:
        >>> hours(40), hours(3000), hours(9000)
        ('40 s', '50 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def command_of(run: Run, recipe: Recipe | None) -> str:
    """The command that repeats a run: its packaged recipe with what was changed, or the recipe in its folder."""
    whole = shlex.join(["contseg", "train", str(run.folder / "recipe.yaml")])
    base = packaged_recipe(recipe) if recipe else None
    if recipe is None or base is None:
        return whole
    own = recipe.model_dump(mode="json")
    there = dict(flat(own))
    changed = differences(base.model_dump(mode="json"), own)
    words = [f"{key}={_value(key, there[key])}" for key in changed if key in there and key not in LABELS]
    try:  # a key can have an effect on others, so the command is tried
        repeated = read_recipe(str(recipe.based_on), words).model_dump(mode="json")
    except ContsegError:
        return whole
    if set(differences(repeated, own)) - set(LABELS):
        return whole
    return shlex.join(["contseg", "train", str(recipe.based_on), *words])


def _value(key: str, value: Any) -> str:
    """A value of a recipe as an override has it."""
    if value is None:
        return ""
    return value if isinstance(value, str) and _read(key, value) == value else json.dumps(value)


def _read(key: str, text: str) -> Any:
    try:
        return parse_yaml(text, key)
    except ContsegError:
        return None
