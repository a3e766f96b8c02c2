"""Read the tensors of foreign checkpoint files, without executing code in them."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from contseg.archives import read_pickle
from contseg.data.lists import require_file
from contseg.errors import ContsegError

CONTAINERS = ("state_dict", "model_state", "model_state_dict", "segmentor", "model")
"""Keys under which checkpoints store the weights, next to optimisers, epochs and scores."""

WHOLE = "give a complete .pth or .safetensors file"
"""End of the errors on unreadable files."""

INSERTED = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts of names that PyTorch's compiler and its wrappers insert at any depth."""

_SCALAR: Any = np.float64(0).__reduce__()[0]
NUMPY_NUMBERS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64")),
]
"""Types of a NumPy number, such as the best score in files of IDEC; allowed in addition to tensors and containers."""


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors or PyTorch file; no code in it is executed.

    The weights may be under one of the keys in `CONTAINERS`. Parts of names that PyTorch's wrappers insert are removed:
    `_orig_mod.` anywhere (a compiled network), and `module.` at the beginning of every name (several devices).

    Raises:
        ContsegError: the file is missing or damaged, or contains no tensors or code.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.pth"
        >>> torch.save({"epoch": 3, "model_state": {"module._orig_mod.conv1.weight": torch.zeros(2)}}, path)
        >>> read_tensors(path)
        {'conv1.weight': tensor([0., 0.])}
    """
    path = Path(path)
    require_file(path)
    if not path.is_file():
        raise ContsegError(f"{path}: weights file not found; check the path")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for key in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ContsegError(f"{path}: contains a {type(content).__name__}; expected a dictionary of tensors")
    tensors = {
        INSERTED.sub("", name): value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        keys = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise ContsegError(
            f"{path}: contains no tensors (found {keys}); expected weights under {', '.join(CONTAINERS)}, or without a key"
        )
    while all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ContsegError(f"{path}: cannot be read as safetensors ({error}); {WHOLE}") from None


def _read_pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(NUMPY_NUMBERS):
            return read_pickle(path)
    except pickle.UnpicklingError as error:
        requested = re.search(r"GLOBAL ([\w.]+)", str(error))
        if requested:
            raise ContsegError(
                f"{path}: cannot be read as plain weights: it would run {requested[1]}, and nothing was executed;"
                " save its state_dict alone"
            ) from None
        raise ContsegError(f"{path}: cannot be read as plain weights (no PyTorch file, or a damaged one); {WHOLE}") from None
    except Exception as error:  # torch raises many kinds for damaged archives
        reason = (str(error).splitlines() or ["it is empty"])[0][:160]
        raise ContsegError(f"{path}: cannot be read as plain weights ({reason}); {WHOLE}") from None
