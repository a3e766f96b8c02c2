"""Read recipes: YAML 1.2, shared parts, overrides, and errors that name the key."""

import copy
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from contseg.data.lists import read_text, require_file
from contseg.data.open import DATASETS
from contseg.differences import flat
from contseg.errors import ContsegError
from contseg.manifest import check_file
from contseg.models.backbones.options import BACKBONES
from contseg.models.heads.options import HEADS
from contseg.models.old_options import nested
from contseg.models.options import laid_over
from contseg.parsing import parse_yaml
from contseg.plugins import joined, load_plugins
from contseg.recipes.problems import first_problem
from contseg.recipes.recipe import Recipe
from contseg.settings import key_value

Model = TypeVar("Model", bound=BaseModel)


def read_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by file or by name.

    Args:
        source: a YAML file, or the name of a packaged recipe (`digits/plop_5-1`).
        overrides: changes `a.b=c` with the value in YAML (`training.lr=1e-3`, `training.epochs=[30, 10]`).

    Raises:
        ContsegError: the recipe does not exist or is not YAML, a key is unknown, or a value has the wrong type (names key
            and value).

    Example:
        >>> read_recipe("digits/plop_5-1", ["training.lr=0.5", "method.variant=released"]).training.lr
        0.5
    """
    return resolve(source, overrides).recipe


COMMAND_LINE = "command line"
"""The origin of a value that is set by an override."""


@dataclass(frozen=True)
class Resolved:
    """A recipe and the origin of its values.

    Attributes:
        recipe: the resolved recipe.
        origins: dotted key (`training.lr`) to the part or recipe that set it last, or to `COMMAND_LINE`; keys with their
            default are missing.
        layers: names of the parts and of the recipe, in the order in which they are applied.
    """

    recipe: Recipe
    origins: Mapping[str, str]
    layers: tuple[str, ...]


def read_run(file: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe of a run for evaluation or prediction, which do not need its method.

    Plugins that are not found are skipped; a missing part is an error when it is used.

    Args:
        file: `recipe.yaml` of the run.
        overrides: as in `read_recipe`.

    Raises:
        ContsegError: see `read_recipe`; or the file is not the one that the run wrote.
    """
    check_file(Path(file), "see what changed with: contseg train --resume RUN")
    content, _, _ = _combined(str(file), overrides, required=False)
    recipe = _typed(content, str(file))
    with suppress(ContsegError):
        return _completed(recipe)
    return recipe


def resolve(source: str | Path, overrides: Sequence[str] = ()) -> Resolved:
    """Read a recipe by file or by name, with the origin of its values.

    Args:
        source, overrides: as in `read_recipe`.

    Raises:
        ContsegError: see `read_recipe`.

    Example:
        >>> origins = resolve("digits/plop_5-1", ["training.seed=3"]).origins
        >>> origins["scenario.split"], origins["training.seed"], "training.momentum" in origins
        ('parts/digits-scenes', 'command line', False)
    """
    content, origins, names = _combined(str(source), overrides)
    packaged = set(recipe_names())
    based_on = [name for name in names if name in packaged]
    if based_on and content.get("based_on") is None:
        content["based_on"] = based_on[-1]
    there = dict(flat(content))
    kept = {key: origin for key, origin in origins.items() if key in there}  # not those of a method that was replaced
    by_user = {key for key, origin in kept.items() if key.startswith("network.") and origin not in _index()}
    recipe = parse_recipe(content, str(source))
    return Resolved(recipe.model_copy(update={"network": _set_by(recipe.network, by_user, "network.")}), kept, names)


def _combined(
    source: str, overrides: Sequence[str] = (), *, required: bool = True
) -> tuple[dict[str, Any], dict[str, str], tuple[str, ...]]:
    """Combine the parts of a recipe and the overrides; returns the content, the origin of every key, and the layers.

    Args:
        required: as in `load_plugins`. The plugins of all layers are imported first, as they define keys.
    """
    layers = list(islice(_layers(*_find(source)), MOST_LAYERS + 1))
    if len(layers) > MOST_LAYERS:
        raise ContsegError(f"{source}: extends: more than {MOST_LAYERS} parts; write them into one file")
    content: dict[str, Any] = {}
    origins: dict[str, str] = {}
    plugins: list[str] = []
    for name, layer in layers:
        if "plugins" in layer:
            plugins, origins["plugins"] = joined(plugins, layer.pop("plugins"), Path(name).parent), name
    for override in overrides:
        if override.startswith("plugins="):
            given: dict[str, Any] = {}
            _apply(given, override)
            plugins, origins["plugins"] = joined(plugins, given["plugins"], Path()), COMMAND_LINE
    load_plugins(plugins, required=required)
    for name, layer in layers:
        content, set_here = _laid(content, layer)
        origins |= dict.fromkeys(set_here, name)
    network: dict[str, Any] = {}  # all overrides at once, so that the keys of a part that they select are kept
    for override in overrides:
        of_network = re.match(r"network[.=]", override)
        set_here = _apply(network if of_network else content, override)
        origins |= dict.fromkeys([] if of_network else set_here, COMMAND_LINE)
    content, set_here = _laid(content, network)
    origins |= dict.fromkeys(set_here, COMMAND_LINE)
    return content | {"plugins": plugins}, origins, tuple(name for name, _ in layers)


def _set_by(options: Model, keys: set[str], prefix: str) -> Model:
    """The same options, marked so that `model_dump(exclude_unset=True)` returns only the keys that the user set."""
    values = {}
    for name in type(options).model_fields:
        value = getattr(options, name)
        values[name] = _set_by(value, keys, f"{prefix}{name}.") if isinstance(value, BaseModel) else value
    own = {key.removeprefix(prefix).partition(".")[0] for key in keys if key.startswith(prefix)}
    return options.model_construct(_fields_set=own, **values)


def outline(name: str) -> Recipe:
    """A packaged recipe with the hyper-parameters that it sets, without the defaults of its method.

    Neither methods nor PyTorch are imported, so that listing all recipes is fast.

    Raises:
        ContsegError: see `read_recipe`.

    Example:
        >>> outline("voc/mib_15-1_disjoint").method
        {'name': 'mib', 'distillation': 10.0}
    """
    return _typed(_combined(name)[0], name)


def parse_recipe(content: Mapping[str, Any], source: str) -> Recipe:
    """Make a recipe from plain values, as read from YAML.

    Missing hyper-parameters of the method get their defaults. The installed packages whose parts the recipe uses are added
    to its plugins.

    Raises:
        ContsegError: see `read_recipe`.
    """
    load_plugins(joined([], content.get("plugins", []), Path()))
    recipe = _typed(content, source)
    try:
        return _completed(recipe)
    except ContsegError as error:
        raise ContsegError(f"{source}: {error}") from None


def _completed(recipe: Recipe) -> Recipe:
    from contseg.data.pipelines.augment import PIPELINES  # imports PyTorch, which `outline` avoids
    from contseg.methods.registry import METHODS, hyper_parameters, make_method

    method = dict(recipe.method)
    if "name" not in method:
        raise ContsegError("method.name: missing; name a method such as plop")
    PIPELINES.check(recipe.data.pipeline)
    complete = hyper_parameters(make_method(method.pop("name"), **method))
    packages = (
        METHODS.package(complete["name"]),
        DATASETS.package(recipe.data.dataset),
        PIPELINES.package(recipe.data.pipeline),
        BACKBONES.package(recipe.network.backbone.name),
        HEADS.package(recipe.network.head.name),
    )
    plugins = joined([package for package in packages if package], recipe.plugins, Path())
    return recipe.model_copy(update={"method": complete, "plugins": plugins})


def _typed(content: Mapping[str, Any], source: str) -> Recipe:
    """The recipe of plain values; the keys under `method` are not checked."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise ContsegError(f"{source}: {first_problem(error)}") from None


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe as YAML, which can be read again."""
    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 1 << 20  # folded lines with escapes are not always read back unchanged
    yaml.allow_unicode = False  # escapes, so that all characters are read back, including line separators
    yaml.dump(recipe.model_dump(mode="json"), text)
    return text.getvalue()


def recipe_names() -> list[str]:
    """Names of the packaged recipes.

    Example:
        >>> "digits/plop_5-1" in recipe_names()
        True
    """
    return sorted(name for name in _index() if not name.startswith("parts/"))


def is_of_published_data(name: str) -> bool:
    """Whether a packaged recipe uses a dataset with published numbers, not the demos or your own images.

    Example:
        >>> is_of_published_data("voc/plop_15-1_overlapped"), is_of_published_data("digits/plop_5-1")
        (True, False)
    """
    top = name.partition("/")[0]
    return top not in ("digits", "folder", "globe") and files("contseg.recipes").joinpath(top).is_dir()


def _packaged(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _packaged(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            yield prefix + entry.name.removesuffix(".yaml"), entry


def recipe_text(source: str) -> str:
    """The text of a recipe file, or of a packaged recipe or part, without the parts that it extends.

    Raises:
        ContsegError: there is no such recipe (suggests the closest match).
    """
    path = Path(source)
    require_file(path)
    if path.is_file():
        return read_text(path)
    if source in _index():
        return _index()[source].read_text(encoding="utf-8")
    if path.suffix in (".yaml", ".yml"):
        raise ContsegError(
            f"{source}: recipe file not found; check the path, or list packaged recipes with: contseg recipes"
        )
    names = recipe_names()
    containing = [name for name in names if source.lower() in name]
    near = get_close_matches(source, containing, n=3, cutoff=0) or get_close_matches(source, names, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ContsegError(f"recipe '{source}': not found; {meant}list all {len(names)} with: contseg recipes")


@cache
def _index() -> dict[str, Traversable]:
    """Every packaged recipe and part by name, including those of entry points in the group `contseg.recipes`."""
    index = dict(_packaged(files("contseg.recipes"), ""))
    for entry in entry_points(group="contseg.recipes"):
        for name, file in _packaged(files(entry.value), ""):
            if name in index:
                raise ContsegError(f"recipe '{name}': is in two packages, {index[name]} and {file}; uninstall one of them")
            index[name] = file
    return index


@cache  # many recipes extend the same part
def _packaged_content(name: str) -> dict[str, Any]:
    return _load(_index()[name].read_text(encoding="utf-8"), name)


def _find(source: str) -> tuple[dict[str, Any], str]:
    """Content and name of a recipe file or a packaged recipe."""
    if not Path(source).is_file() and source in _index():
        return copy.deepcopy(_packaged_content(source)), source
    return _load(recipe_text(source), source), source


def _load(text: str, source: str) -> dict[str, Any]:
    content = parse_yaml(text, source)
    if not isinstance(content, dict):
        raise ContsegError(
            f"{source}: a recipe is a mapping of keys to values, found {type(content).__name__}; write KEY: VALUE"
        )
    if other := [key for key in content if not isinstance(key, str)]:
        raise ContsegError(f"{source}: {other[0]!r} is not a key of a recipe; keys are words, such as training")
    return content


MOST_LAYERS = 100


def _layers(content: dict[str, Any], source: str, above: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """The parts under `extends`, each after the parts that it extends itself, and last the content.

    Args:
        above: the recipes and parts that extend this one.
    """
    parts = content.pop("extends", [])
    parts = [parts] if isinstance(parts, str) else parts
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ContsegError(f"{source}: extends: expected the name of a part, or a list of names (got {parts!r})")
    place = str(Path(source).resolve()) if Path(source).is_file() else source
    if place in above:
        raise ContsegError(f"{source}: extends: extends itself, by way of {above[-1]}; remove it there")
    for part in parts:
        beside = Path(source).parent / f"{part}.yaml"
        try:
            found = _find(str(beside) if beside.is_file() else part)
        except ContsegError as error:
            raise ContsegError(f"{source}: extends: {error}") from None
        yield from _layers(*found, (*above, place))
    yield source, content


def _laid(content: dict[str, Any], layer: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The content with a layer merged into it, and the keys that the layer sets; for the network see `laid_over`."""
    network = layer.get("network")
    if not isinstance(network, Mapping):
        return _merged(content, layer), [key for key, _ in flat(layer)]
    before = content.get("network") or {}
    layer = {**layer, "network": nested(network, before)}
    return _merged(content, layer) | {"network": laid_over(before, network)}, [key for key, _ in flat(layer)]


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        # another method inherits no hyper-parameters; those without a name belong to no method yet
        before = result[key].get("name") if key == "method" and both else None
        fresh = before is not None and value.get("name", before) != before
        result[key] = _merged(result[key], value) if both and not fresh else value
    return result


def _apply(content: dict[str, Any], override: str) -> list[str]:
    """Apply an override to the content; returns the keys that it sets."""
    key, value = key_value(override, "training.lr=0.01", "override ")
    *folders, last = key.split(".")
    for folder in folders:
        inner = content.setdefault(folder, {})
        if isinstance(inner, str) and folder in ("backbone", "head"):
            inner = content[folder] = {"name": inner}
        if not isinstance(inner, dict):
            raise ContsegError(f"override '{override}': '{folder}' is {inner!r} and has no keys; set it to a value")
        content = inner
    if last == "name" and folders == ["method"] and content.get("name") != value:
        content.clear()
    if isinstance(value, str) and isinstance(content.get(last), dict) and last in ("backbone", "head"):
        content, last = content[last], "name"
    content[last] = value
    return [name for name, _ in flat(value, key)]
