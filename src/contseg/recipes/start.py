"""Runs that begin with a trained segmenter (`start_from`), which must match the recipe."""

from pathlib import Path

from contseg.data.classes import ClassTable, class_differences
from contseg.differences import flat
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.interop.pretrained import open_segmenter
from contseg.interop.segmenter_file import load_segmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.recipes.models import find_model
from contseg.recipes.recipe import Recipe
from contseg.scenarios.scenario import Scenario


def resolved_start(recipe: Recipe) -> Path:
    """The path of the segmenter in `start_from`, see `find_model`."""
    try:
        return find_model(Path(str(recipe.start_from)))
    except ContsegError as error:
        raise ContsegError(f"start_from: {error}") from None


def given_start(recipe: Recipe, scenario: Scenario) -> NetworkOptions:
    """The network of the segmenter in `start_from`, which is used in place of step 0.

    Raises:
        ContsegError: the segmenter cannot be read, its classes are not those of step 0, by name and in order, or the recipe
            sets another network.
    """
    if recipe.backbone_weights is not None:
        raise ContsegError("backbone_weights: start_from brings all weights; leave one of the two out")
    segmenter, classes = _opened(recipe)
    path, wanted = Path(str(recipe.start_from)), scenario[0].table.names
    if classes.names != wanted:
        place = next(class_differences(classes.names, wanted))[0]
        strange = [name for name in classes.names if name not in scenario.dataset.classes.names]
        advice = "set scenario.split and scenario.order to match"
        if (
            scenario.dataset.classes.has_background
            and wanted[0] not in classes.names
            and wanted[1:][: len(classes)] == classes.names
        ):
            advice = (
                f"a segmenter without an output for {wanted[0]} cannot mark pixels of other classes, and cannot be"
                " extended; train it in steps, or with data.options.background=annotated or unlabelled"
            )
        elif strange:
            advice = (
                f"{', '.join(strange)}: not in the class list of the data, which has to begin with the segmenter's classes"
                " in their order, new ones after them, and the masks have the ids of that list"
            )
        raise ContsegError(
            f"start_from: {path} has {len(classes)} classes ({', '.join(classes.names)}), step 0 has {len(wanted)}"
            f" ({', '.join(wanted)}); they first differ at number {place}; {advice}"
        )
    if segmenter.options.unknown != scenario.policy.has_unknown:
        has, needs = ("an", "none") if segmenter.options.unknown else ("no", "one")
        raise ContsegError(
            f'start_from: {path} has {has} output "unknown", and policy {recipe.scenario.policy} needs {needs};'
            " set scenario.policy to match"
        )
    _require_agreement(recipe, segmenter.options)
    return segmenter.options


def begun_with(recipe: Recipe, run: Run) -> NetworkOptions:
    """The network of a run whose step 0 is finished: that of its segmenter after step 0, or else that of its recipe."""
    path = run.segmenter_path(0)
    return load_segmenter(path, "meta")[0].options if path.is_file() else recipe.network


def with_network_of_start(recipe: Recipe) -> Recipe:
    """The recipe with the network of the segmenter in `start_from`; unchanged without `start_from`.

    Raises:
        ContsegError: the segmenter cannot be read, or the recipe sets another network.
    """
    if recipe.start_from is None:
        return recipe
    network = _opened(recipe)[0].options
    _require_agreement(recipe, network)
    return recipe.model_copy(update={"network": network})


def _opened(recipe: Recipe) -> tuple[Segmenter, ClassTable]:
    path = resolved_start(recipe)
    try:
        return open_segmenter(path, "meta")  # the engine loads the weights
    except ContsegError as error:
        raise ContsegError(f"start_from: {error}") from None


def _require_agreement(recipe: Recipe, network: NetworkOptions) -> None:
    """Raise ContsegError if a key of `network` that the user set differs from the segmenter's.

    Keys of parts and packaged recipes describe a network that is not used, and `unknown` follows from the policy.
    """
    own = dict(flat(network.model_dump()))
    for key, requested in sorted(flat(recipe.network.model_dump(exclude_unset=True, exclude={"unknown"}))):
        if key and requested != {} and requested != own.get(key):
            raise ContsegError(
                f"network.{key}: {requested!r} was set, and the segmenter in start_from ({recipe.start_from}) has"
                f" {own.get(key)!r}; remove network.{key}, as the network comes with the segmenter"
            )
