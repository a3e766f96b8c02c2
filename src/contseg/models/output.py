"""The output of a segmenter."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from contseg.models.layers import resize


@dataclass
class SegmenterOutput:
    """The output of a segmenter for a batch.

    Args:
        logits: (B, K, h, w), at feature resolution.
        features: requested taps, by name.
        auxiliary: auxiliary outputs; in training only.
        passed: intermediate results of the head for `Segmenter.observe`; in training only.
    """

    logits: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    auxiliary: list["AuxiliaryOutput"] = field(default_factory=list)
    passed: Any = None
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
