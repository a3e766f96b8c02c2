"""What is printed before a run begins: options that were chosen for the machine, and a remark on random weights."""

from contseg.engine.devices import accelerator_of, cores, precision_of, workers_of
from contseg.recipes.recipe import Recipe


def choices(recipe: Recipe, *, resumed: bool = False) -> list[str]:
    """A line on the options that were chosen for this machine, and a line on random initial weights, if they apply.

    Args:
        resumed: whether the run has begun, so that its initial weights can no longer be chosen.

    Example:
        >>> from contseg.recipes.read import read_recipe
        >>> print(*choices(read_recipe("folder/mib", ["training.accelerator=cpu", "training.workers=0"])), sep="\\n")
        chosen for this machine (cpu, ... cores): training.precision=32
        the network starts from random weights; give ImageNet weights of a resnet18 with backbone_weights=FILE, or a trained
        segmenter with start_from=FOLDER
        >>> choices(read_recipe("digits/mib_5-1"))
        []
    """
    training, lines = recipe.training, []
    chosen = [f"training.workers={workers_of(training)}"] if training.workers == "auto" else []
    chosen += [f"training.precision={precision_of(training)}"] if training.precision == "amp" else []
    if chosen:
        lines.append(f"chosen for this machine ({accelerator_of(training)}, {cores()} cores): {', '.join(chosen)}")
    if not resumed and recipe.backbone_weights is None and recipe.start_from is None and recipe.data.dataset != "digits":
        lines.append(
            f"the network starts from random weights; give ImageNet weights of a {recipe.network.backbone.name} with"
            " backbone_weights=FILE, or a trained segmenter with start_from=FOLDER"
        )
    return lines
