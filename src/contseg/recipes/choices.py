"""What is printed before a run begins: options that were chosen for the machine, and a remark on random weights."""

from contseg.engine.devices import accelerator_of, cores, precision_of, workers_of
from contseg.plugins import is_foreign
from contseg.recipes.recipe import Recipe


def choices(recipe: Recipe, *, resumed: bool = False) -> list[str]:
    """A line on the options that were chosen for this machine, and a line on random initial weights, if they apply.

    Args:
        resumed: whether the run has begun, so that its initial weights can no longer be chosen.

    Example:
        >>> from contseg.recipes.read import read_recipe
        >>> print(*choices(read_recipe("folder/mib", ["training.accelerator=cpu", "training.workers=0"])), sep="\\n")
        chosen for this machine (cpu, ... cores): training.precision=32
        the network starts from random weights; set backbone_weights=FILE with ImageNet weights of resnet18, or
        start_from=FOLDER with a trained segmenter
        >>> choices(read_recipe("digits/mib_5-1"))
        []
    """
    training, lines = recipe.training, []
    chosen = [f"training.workers={workers_of(training)}"] if training.workers == "auto" else []
    chosen += [f"training.precision={precision_of(training)}"] if training.precision == "amp" else []
    if chosen:
        lines.append(f"chosen for this machine ({accelerator_of(training)}, {cores()} cores): {', '.join(chosen)}")
    if not resumed and recipe.backbone_weights is None and recipe.start_from is None and recipe.data.dataset != "digits":
        backbone, ways = recipe.network.backbone, ["start_from=FOLDER with a trained segmenter"]
        if is_foreign(type(backbone)):
            ways.insert(0, "backbone_weights=FILE if you have pretrained weights")
        elif backbone.published:
            ways.insert(0, f"backbone_weights=FILE with ImageNet weights of {backbone.name}")
        lines.append(f"the network starts from random weights; set {', or '.join(ways)}")
    return lines
