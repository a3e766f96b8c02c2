"""What of a segmenter stays the same during a step, and from which features a forward pass can therefore start."""

from collections.abc import Collection, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from contseg.errors import ContsegError
from contseg.models.adopted.segmenter import AdoptedSegmenter
from contseg.models.eomt.segmenter import EoMTSegmenter
from contseg.models.heads.head import Head
from contseg.models.names import STAGES
from contseg.models.segmenter import Segmenter

SHARES = ("p", "probability", "drop_prob")
"""Attributes of a layer that drops at random, for its share."""


def start_points(segmenter: Segmenter, taps: Sequence[str] = (), *, fixed: bool = False) -> tuple[str, ...]:
    """The deepest points that are held in the present mode and from which a forward pass with `taps` can start.

    Held means that the same image always gives the same features: no parameter below learns, no norm uses the statistics of
    the batch, nothing is dropped at random. If the head is held, the points are its results before their last dropout,
    which still drops; otherwise the stages of the backbone that the head reads.

    Args:
        taps: as of `Segmenter.forward`.
        fixed: nothing will be trained while the features are used, so that only the mode of layers matters.

    Raises:
        ContsegError: the backbone is not held (names its part), or the network is one of another library.

    Example:
        >>> from contseg import NetworkOptions
        >>> segmenter = Segmenter(NetworkOptions(backbone={"name": "resnet18", "width": 8}), [3, 1])
        >>> segmenter.freeze_all_but(-1)
        >>> start_points(segmenter), start_points(segmenter, ("stage2",))
        (('head',), ('head', 'stage2'))
        >>> segmenter.freeze("backbone", norms=True)
        >>> start_points(segmenter)
        ('stage4',)
        >>> segmenter.freeze("backbone")
        >>> start_points(segmenter)
        Traceback (most recent call last):
        contseg.errors.ContsegError: the norm backbone.bn1 uses the statistics of the batch
    """
    if isinstance(segmenter, EoMTSegmenter):
        raise ContsegError("queries pass the last blocks of the backbone, so nothing of it can be kept under the head eomt")
    if isinstance(segmenter, AdoptedSegmenter):
        raise ContsegError(f"{segmenter.options.title} is a network of another library, which runs as a whole")
    if problem := _change(segmenter.backbone, "backbone", fixed):
        raise ContsegError(problem)
    head = segmenter.head
    held = type(head).run is Head.run and not _change(head, "head", fixed, list(head.dropouts.values()))
    points: dict[str, None] = {}

    def want(*stages: int) -> None:
        points.update(dict.fromkeys(STAGES[stage] for stage in stages))

    for tap in (segmenter.classifier_tap, *taps):
        if tap in STAGES:
            want(STAGES.index(tap))
        elif tap in ("head", "pyramid", head.output_tap):
            if tap == "pyramid":
                want(0, 1, 2)
            if held:
                points["head"] = None
            else:
                want(*head.uses)
        elif tap not in ("logits", *segmenter.classifier.taps):
            if held and tap in head.dropouts:
                points[tap] = None
            else:
                want(0, 1, 2, 3)
    if segmenter.auxiliary is not None and segmenter.training:
        if _change(segmenter.auxiliary.convolution, "auxiliary.convolution", fixed):
            want(2)
        else:
            points["auxiliary"] = None
    return tuple(points)


def _change(module: nn.Module, name: str, fixed: bool, apart: Collection[nn.Module] = ()) -> str:
    """Why the result of a module may change within a step; "" if it is held.

    Args:
        apart: layers in it that do not count.
    """
    left_out = {id(part) for layer in apart for part in layer.modules()}
    for place, part in module.named_modules(prefix=name):
        if id(part) in left_out:
            continue
        if not fixed and (trained := [key for key, value in part.named_parameters(recurse=False) if value.requires_grad]):
            return f"{place}.{trained[0]} is trained"
        if part.training and isinstance(part, _NormBase) and part.track_running_stats:
            return f"the norm {place} uses the statistics of the batch"
        if part.training and "drop" in type(part).__name__.lower() and any(getattr(part, key, 0) for key in SHARES):
            return f"{place} drops at random"
    return ""
