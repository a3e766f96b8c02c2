"""The output of a segmenter."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from contseg.models.layers import resize
from contseg.precision import precise

BACKGROUND = 0.5
"""The score of a background without masks."""


class MaskPrediction(NamedTuple):
    """Classes and masks of Q queries.

    Args:
        class_logits: (B, Q, K + 1), no-object last; or (B, Q, K) of a network with sigmoid classes and no such output.
        mask_logits: (B, Q, h, w), at the resolution of the network's masks.
        boxes: (B, Q, 4) centre x, y, width, height in [0, 1]; None of a network without boxes.
        softmax: whether the share of a query at a pixel is a softmax over queries (CoMFormer), not a sigmoid of its own.
        background: whether output 0 is a background that has no masks, `network.background: constant`. Its score is 1/2
            everywhere: a pixel is background where no class has more.
    """

    class_logits: Tensor
    mask_logits: Tensor
    boxes: Tensor | None = None
    softmax: bool = False
    background: bool = False

    def image(self, place: int) -> "MaskPrediction":
        """The prediction of one image, as a batch."""
        cut = slice(place, place + 1)
        boxes = None if self.boxes is None else self.boxes[cut]
        return MaskPrediction(self.class_logits[cut], self.mask_logits[cut], boxes, self.softmax, self.background)


def score_map(prediction: MaskPrediction) -> Tensor:
    """The score of each class at each place of the masks, (B, K, h, w): a sum over queries of class probability times mask.

    No-object is left out, so the scores of a place do not sum to 1; they may sum to more.

    Example:
        >>> score_map(MaskPrediction(torch.zeros(1, 4, 2), torch.zeros(1, 4, 1, 1))).tolist()
        [[[[1.0]]]]
    """
    chances = precise(prediction.class_logits).softmax(dim=2)[:, :, :-1]
    maps = precise(prediction.mask_logits)
    shares = maps.softmax(dim=1) if prediction.softmax else maps.sigmoid()
    return with_background(torch.einsum("bqk,bqhw->bkhw", chances, shares.to(chances)), prediction.background)


def with_background(scores_KHW: Tensor, background: bool) -> Tensor:
    """Scores (..., K, H, W) in which a background without masks has 1/2, changed in place of its own."""
    if background:
        scores_KHW[..., 0, :, :] = BACKGROUND
    return scores_KHW


def as_logits(scores: Tensor) -> Tensor:
    """Logarithms of scores; their softmax are the shares of the classes."""
    return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()


@dataclass(init=False)
class SegmenterOutput:
    """The output of a segmenter for a batch.

    Args:
        logits: (B, K, h, w), at feature resolution. Of a network that classifies masks: the logarithms of `score_map`, which
            are computed when they are first read.
        features: requested taps, by name.
        auxiliary: auxiliary outputs; in training only.
        passed: intermediate results of the head for `Segmenter.observe`; in training only.
        masks: classes and masks of queries, of a network that classifies masks; then `logits` is left out.

    Example:
        >>> output = SegmenterOutput(masks=MaskPrediction(torch.zeros(1, 5, 4), torch.zeros(1, 5, 8, 8)))
        >>> tuple(output.logits.shape), tuple(output.logits_at((32, 32)).shape)
        ((1, 3, 8, 8), (1, 3, 32, 32))
    """

    features: dict[str, Tensor]
    auxiliary: list["AuxiliaryOutput"]
    passed: Any
    masks: MaskPrediction | None
    _logits: Tensor | None = field(repr=False)  # under another name, as Fabric reads every field of an output
    _resized: dict[tuple[int, int], Tensor] = field(init=False, repr=False)

    def __init__(
        self,
        logits: Tensor | None = None,
        features: dict[str, Tensor] | None = None,
        auxiliary: list["AuxiliaryOutput"] | None = None,
        passed: Any = None,
        masks: MaskPrediction | None = None,
    ):
        self._logits, self.passed, self.masks = logits, passed, masks
        self.features = {} if features is None else features
        self.auxiliary = [] if auxiliary is None else auxiliary
        self._resized = {}

    @property
    def logits(self) -> Tensor:
        """See the class."""
        if self._logits is None:
            assert self.masks is not None
            self._logits = as_logits(score_map(self.masks))
        return self._logits

    def logits_at(self, size: tuple[int, int]) -> Tensor:
        """Logits bilinearly resized to (H, W), in float32 or better; computed once for each size."""
        if size not in self._resized:
            self._resized[size] = resize(self.logits, size)
        return self._resized[size]


class AuxiliaryOutput(SegmenterOutput):
    """An additional output in training.

    Args:
        logits, masks: as of `SegmenterOutput`.
        name: its loss term is `auxiliary_NAME`.
        weight: weight of its supervised term.
    """

    name: str
    weight: float

    def __init__(
        self, logits: Tensor | None = None, name: str = "", weight: float = 1.0, masks: MaskPrediction | None = None
    ):
        super().__init__(logits, masks=masks)
        self.name, self.weight = name, weight
