"""The lines of metrics.jsonl, which may be cut off or damaged."""

import json
from typing import Any

from contseg.engine.step_state import StepState


def whole_lines(content: bytes) -> list[dict[str, Any]]:
    """The lines up to the first that is incomplete or damaged.

    Example:
        >>> whole_lines(b'{"epoch": 0}\\n{"epoch": 1}\\n{"epo')
        [{'epoch': 0}, {'epoch': 1}]
    """
    lines: list[dict[str, Any]] = []
    for line in content.splitlines(keepends=True):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(value, dict) or not line.endswith(b"\n"):
            break
        lines.append(value)
    return lines


def lines_at(state: StepState, content: bytes) -> bytes:
    """The file as it was when a state was written.

    Args:
        content: the file now. Only states of earlier versions need it, which have the length of the file and not its lines;
            it is then cut to its last whole line.
    """
    if state.metrics is not None:
        return state.metrics.encode()
    kept = content[: state.metrics_bytes]
    return b"".join(kept.splitlines(keepends=True)[: len(whole_lines(kept))])
