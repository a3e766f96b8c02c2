"""Make a segmenter from its options."""

from collections.abc import Sequence

from contseg.models.adopted.segmenter import AdoptedSegmenter
from contseg.models.eomt.segmenter import EoMTSegmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter


def make_segmenter(options: NetworkOptions, widths: Sequence[int]) -> Segmenter:
    """An untrained segmenter: of our own parts, on queries and masks, or around a network of another library.

    Args:
        options: options of the network.
        widths: outputs of each step so far, see `first_widths`.

    Raises:
        ContsegError: the options are invalid together, or a library that they need is not installed.

    Example:
        >>> make_segmenter(NetworkOptions(backbone={"name": "resnet18", "width": 8}), [3, 1]).widths
        [3, 1]
    """
    kind = EoMTSegmenter if options.head.masks else AdoptedSegmenter if options.adopted else Segmenter
    return kind(options, widths)
