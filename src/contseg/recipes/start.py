"""A run that begins with a segmenter that somebody trained: does it fit the scenario?"""

from itertools import zip_longest
from pathlib import Path

from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.interop.pretrained import is_pretrained, open_segmenter
from contseg.models.options import NetworkOptions
from contseg.recipes.recipe import Recipe
from contseg.scenarios.scenario import Scenario


def resolved_start(path: Path) -> Path:
    """The segmenter that `start_from` means: the path itself, or the one after the last finished step of a run.

    Raises:
        ContsegError: the folder is that of a run without a finished step, or holds neither a run nor a segmenter.
    """
    if not path.is_dir() or is_pretrained(path):
        return path
    if not (path / "recipe.yaml").is_file():
        raise ContsegError(
            f"start_from: {path} holds neither a segmenter (segmenter.json) nor a run (recipe.yaml); give the folder of one,"
            " or a segmenter.safetensors"
        )
    finished = len(Run(path).confusions())
    if not finished:
        raise ContsegError(f"start_from: {path}: no step of this run is finished yet; finish it with --resume {path}")
    return Run(path).segmenter_path(finished - 1)


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
    path = resolved_start(Path(recipe.start_from))
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
