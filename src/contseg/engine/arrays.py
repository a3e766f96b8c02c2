"""Which arrays the .npz files of a run contain."""

from pathlib import Path

import numpy as np


def belong(arrays: dict[str, np.ndarray], path: Path) -> bool:
    """Whether a file of a run has the arrays of its name, and a matrix has the classes of its step.

    This finds exchanged files, also in a run without a manifest.

    Example:
        >>> belong({"confusion": np.eye(3), "groups": np.array([0, 0, 1, 2])}, Path("steps/00/confusion.npz"))
        False
    """
    if path.name == "predictions.npz":
        return all(name.startswith(("prediction", "entropy", "margin", "segments", "kinds")) for name in arrays)
    if path.name == "samples.npz":
        return "names" in arrays and all(f"truth{number}" in arrays for number in range(len(arrays["names"])))
    if path.name != "confusion.npz" or "groups" not in arrays:
        return path.name != "confusion.npz" or "confusion" in arrays
    groups = arrays["groups"]
    seen = int((groups <= int(path.parent.name)).sum())
    scored = seen if (path.parent.parent / "01").exists() else len(groups)  # one step may be scored as several
    rows, columns = arrays["confusion"].shape
    return rows in (seen, scored) and columns in (rows, rows + 1)  # the last column may be that of undecided pixels
