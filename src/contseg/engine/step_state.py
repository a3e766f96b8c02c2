"""The content of `state.pt`: what a step needs to continue."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class StepState:
    """The state of a step.

    A finished step keeps what the next step needs: `method`, `scaler` and `seconds`. A step in training keeps all.

    Args:
        finished: whether the step was measured and its segmenter written.
        seconds: spent on the step so far, over all attempts.
        method: `Method.state_dict()`.
        scaler: state of the fp16 gradient scaler; {} at other precisions.
        epochs_done: whole epochs so far.
        model, optimiser: their state dicts.
        best: `BestEpoch.kept`.
        within: `Progress.saved()` of an interrupted epoch, or None between epochs.
        metrics: content of metrics.jsonl; set when the state is written. None in states of earlier versions.
        metrics_bytes: length of metrics.jsonl, in states of earlier versions.

    Example:
        >>> StepState.from_dict({"finished": True, "seconds": 1.5, "method": {}, "metrics": ""}).seconds
        1.5
    """

    finished: bool
    seconds: float
    method: dict[str, Tensor]
    scaler: dict[str, Any] = field(default_factory=dict)
    epochs_done: int = 0
    model: dict[str, Tensor] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    within: dict[str, Any] | None = None
    metrics: str | None = None
    metrics_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Tensors and plain types only, so that the file can be read with `weights_only=True`."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "StepState":
        """The inverse of `to_dict`; keys that earlier versions did not write have their defaults.

        Raises:
            TypeError: `saved` lacks a key or has an unknown one.
        """
        return cls(**saved)
