"""A run that begins with a segmenter that somebody trained: does it fit the scenario?"""

from itertools import zip_longest
from pathlib import Path

from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.interop.pretrained import open_segmenter
from contseg.models.options import NetworkOptions
from contseg.recipes.recipe import Recipe
from contseg.scenarios.scenario import Scenario


def given_start(recipe: Recipe, scenario: Scenario, folder: Path) -> tuple[NetworkOptions, Path] | None:
    """The network and the place of the segmenter that stands for step 0, or None where step 0 is trained, or done already.

    Args:
        folder: of the run.

    Raises:
        ContsegError: the segmenter cannot be read, or its classes are not those of step 0, by name and in order.
    """
    if recipe.start_from is None:
        return None
    if recipe.backbone_weights is not None:
        raise ContsegError("backbone_weights: start_from brings all weights; leave one of the two out")
    state = Run(folder).load_state(0)
    if state and state["finished"]:
        return None
    path = Path(recipe.start_from)
    try:
        segmenter, classes = open_segmenter(path)
    except ContsegError as error:
        raise ContsegError(f"start_from: {error}") from None
    wanted = scenario[0].table.names
    if classes.names != wanted:
        pairs = enumerate(zip_longest(classes.names, wanted, fillvalue="nothing"))
        place = next(number for number, (one, other) in pairs if one != other)
        raise ContsegError(
            f"start_from: {path} knows {len(classes)} classes ({', '.join(classes.names)}), step 0 brings {len(wanted)}"
            f" ({', '.join(wanted)}); they first differ at number {place}; set scenario.split and scenario.order to match"
        )
    if segmenter.options.unknown != scenario.policy.has_unknown:
        has, needs = ("an", "none") if segmenter.options.unknown else ("no", "one")
        raise ContsegError(
            f'start_from: {path} has {has} output "unknown", and policy {recipe.scenario.policy} needs {needs};'
            " set scenario.policy to match"
        )
    return segmenter.options, path
