"""The run on ranks other than 0."""

from typing import Any

import numpy as np

from contseg.data.classes import ClassTable
from contseg.engine.run import Run
from contseg.engine.step_state import StepState
from contseg.models.segmenter import Segmenter


class ReadOnlyRun(Run):
    """The run on ranks other than 0: reading works as usual, writing does nothing."""

    def write_text(self, name: str, text: str) -> None:
        pass

    def append_metrics(self, line: dict[str, Any]) -> None:
        pass

    def rewind_metrics(self, state: StepState | None) -> None:
        pass

    def finish(self, summary: dict[str, Any]) -> None:
        pass

    def save_segmenter(self, step: int, segmenter: Segmenter, classes: ClassTable, source: dict[str, Any]) -> None:
        pass

    def save_state(self, step: int, state: StepState) -> None:
        pass

    def save_arrays(self, name: str, **arrays: np.ndarray) -> None:
        pass
