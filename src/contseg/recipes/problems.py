"""Validation errors of recipes, in one line."""

from collections.abc import Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError

from contseg.errors import did_you_mean
from contseg.models.backbones.options import BACKBONES
from contseg.models.heads.options import HEADS
from contseg.models.options import NetworkOptions, closest_key
from contseg.options import KIND, first_error, problem
from contseg.recipes.recipe import Recipe


def _model_at(place: Sequence[int | str]) -> type[BaseModel]:
    """The model that defines the keys at a place in a recipe."""
    model: type[BaseModel] = Recipe
    for part in place:
        kinds = (model, *(part for parts in (BACKBONES, HEADS) for _, part in parts.items()))
        kind = next(one for one in kinds if part in one.model_fields).model_fields[str(part)].annotation
        model = next(one for one in (kind, *get_args(kind)) if isinstance(one, type) and issubclass(one, BaseModel))
    return model


def first_problem(error: ValidationError) -> str:
    """One line: the key, the problem, the value, and for an unknown key the closest match."""
    first = first_error(error)
    where = ".".join(str(part) for part in first["loc"] if not KIND.fullmatch(str(part)))
    if first["type"] == "extra_forbidden":
        model, key = _model_at(first["loc"][:-1]), str(first["loc"][-1])
        hint = closest_key(key) if model is NetworkOptions else did_you_mean(key, model.model_fields)
        return f"{where}: unknown key (got {first['input']!r}); {hint}"
    if first["type"] == "missing":
        return f"{where}: missing; set {where}=VALUE"
    return f"{where}: {problem(error)}"
