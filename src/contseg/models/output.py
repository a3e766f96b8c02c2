"""The output of a segmenter."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from contseg.models.layers import resize


@dataclass(frozen=True)
class MaskPrediction:
    """Classes and masks of Q queries.

    Args:
        class_logits: (B, Q, K + 1), no-object last; or (B, Q, K) of a network with sigmoid classes and no such output.
        mask_logits: (B, Q, h, w), at the resolution of the network's masks.
        boxes: (B, Q, 4) centre x, y, width, height in [0, 1]; None of a network without boxes.
    """

    class_logits: Tensor
    mask_logits: Tensor
    boxes: Tensor | None = None

    def image(self, place: int) -> "MaskPrediction":
        """The prediction of one image, as a batch."""
        cut = slice(place, place + 1)
        boxes = None if self.boxes is None else self.boxes[cut]
        return MaskPrediction(self.class_logits[cut], self.mask_logits[cut], boxes)


@dataclass
class SegmenterOutput:
    """The output of a segmenter for a batch.

    Args:
        logits: (B, K, h, w), at feature resolution.
        features: requested taps, by name.
        auxiliary: auxiliary outputs; in training only.
        passed: intermediate results of the head for `Segmenter.observe`; in training only.
        masks: classes and masks of queries, of a network that classifies masks.
    """

    logits: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    auxiliary: list["AuxiliaryOutput"] = field(default_factory=list)
    passed: Any = None
    masks: MaskPrediction | None = None
    _resized: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False, repr=False)

    def logits_at(self, size: tuple[int, int]) -> Tensor:
        """Logits bilinearly resized to (H, W), in float32 or better; computed once for each size."""
        if size not in self._resized:
            self._resized[size] = resize(self.logits, size)
        return self._resized[size]


@dataclass
class AuxiliaryOutput(SegmenterOutput):
    """An additional output in training.

    Args:
        name: its loss term is `auxiliary_NAME`.
        weight: weight of its supervised term.
    """

    name: str = ""
    weight: float = 1.0
