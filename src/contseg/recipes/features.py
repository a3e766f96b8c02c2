"""Whether a recipe can keep features (`training.features`): its crops must repeat, and some step must not change them."""

import torch

from contseg.data.pipelines.augment import Jitter, Pipeline, variants
from contseg.errors import ContsegError
from contseg.methods.method import Method
from contseg.models.held import start_points
from contseg.models.make import make_segmenter
from contseg.models.options import NetworkOptions, first_widths
from contseg.recipes.recipe import Recipe
from contseg.scenarios.scenario import Scenario
from contseg.scenarios.step import Step


def require_held(recipe: Recipe, scenario: Scenario, method: Method, network: NetworkOptions, pipeline: Pipeline) -> None:
    """Raise ContsegError if `training.features` keeps features that no step uses twice.

    A method that reads its images several times without augmentation (`Method.rereads`) uses them in any case.

    Args:
        pipeline: for training.

    Raises:
        ContsegError: names the key to set.
    """
    wanted = recipe.training.features
    if wanted == "live" or method.rereads:
        return
    if isinstance(pipeline, Jitter):
        raise ContsegError(
            f"data.jitter: draws other colours in every epoch, so training.features={wanted} has nothing to keep; set"
            " data.jitter=null, or training.features=live"
        )
    if not variants(pipeline):
        raise ContsegError(
            f"data.pipeline: '{recipe.data.pipeline}' draws another crop of an image in every epoch, so"
            f" training.features={wanted} has nothing to keep; set data.pipeline=centre, or training.features=live"
        )
    reasons = [_change(network, method, step) for step in scenario[:2]]
    if all(reasons):
        raise ContsegError(
            f"training.features: '{wanted}' keeps features that a step does not change, but with method '{method.name}'"
            f" {reasons[-1]} in step {len(reasons) - 1}; set network.backbone.freeze=all, another method, or"
            " training.features=live"
        )


def _change(network: NetworkOptions, method: Method, step: Step) -> str:
    """Why features may change in a step, as a network without values shows; "" if some are held."""
    with torch.device("meta"):  # takes no memory and no time
        segmenter = make_segmenter(network, first_widths(network, step.old_count or step.seen_count))
        if step.old_count and step.new_count:
            segmenter.grow(step.new_count, method.new_classes_start_from)
        try:
            method.prepare(segmenter, step)
            taps = method.taps if step.old_count and method.needs_teacher else method.first_taps
            start_points(segmenter.train(), taps)
        except ContsegError as problem:
            return str(problem)
        except (RuntimeError, NotImplementedError):  # a method that reads weights: decided when they are there
            return ""
    return ""
