"""Finds on a CPU what would make the host wait for a GPU: results that the host reads, shapes that follow from values, and
copies from memory that is not pinned.
"""

import sys
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

VALUE_DEPENDENT = {
    "_local_scalar_dense", "nonzero", "nonzero_numpy", "masked_select", "bincount", "_unique2", "unique_dim",
    "unique_consecutive", "unique_dim_consecutive", "repeat_interleave", "histc", "equal", "multinomial",
    "_linalg_check_errors",
}  # fmt: skip
"""Operations of PyTorch that copy to the host, or allocate after they have looked at values."""
MASKED = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""Operations that call `nonzero` if an index is a mask."""
READS = {
    torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.item, torch.Tensor.__bool__,
    torch.Tensor.__float__, torch.Tensor.__int__, torch.Tensor.__index__, torch.Tensor.__array__,
}  # fmt: skip
"""Calls that read a tensor, also those that are no operation of PyTorch on a CPU."""
FROM_NUMBERS = {torch.tensor, torch.as_tensor, torch.Tensor.new_tensor}
"""Calls that make a tensor of numbers of the host."""
INDEXED = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
OURS = str(Path(__file__).parents[2])
LIBRARY = str(Path(torch.__file__).parent)


class Waits:
    """Inside the block, notes (operation, function) of everything that would wait.

    Tensors that are on the host whatever the device is may be read: random draws with a generator, which is a CPU's, numbers
    that were made a tensor without a device, and what was copied to the host without waiting for it.

    Attributes:
        seen: operations with `file:function` of the package.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.reading_host = False
        self._modes = (_Calls(self), _Operations(self))

    def found(self, what: str) -> None:
        """Note an operation with the innermost function of the package that made it."""
        frame = sys._getframe(1)
        while frame and ("/contseg/" not in frame.f_code.co_filename or "/tests/" in frame.f_code.co_filename):
            frame = frame.f_back
        place = f"{frame.f_code.co_filename.rpartition('/contseg/')[2]}:{frame.f_code.co_name}" if frame else "backward"
        if (what, place) not in self.seen:
            self.seen.append((what, place))

    def __enter__(self) -> "Waits":
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Operations(TorchDispatchMode):
    """Sees operations, also those of the backward pass."""

    def __init__(self, waits: Waits):
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        if name in MASKED:
            masks = [one for one in args[1] if one is not None and one.dtype in (torch.bool, torch.uint8)]
            # a single number becomes `masked_fill`, which waits for nothing
            filled = name != "index" and args[2].numel() == 1 and not (len(args) > 3 and args[3])
            if masks and not filled:
                self.waits.found(f"{name} of a mask")
        elif name in VALUE_DEPENDENT and not self.waits.reading_host:
            self.waits.found(name)
        return function(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    """Sees what Python calls."""

    def __init__(self, waits: Waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        made_here = getattr(args[0], "made_on_host", False) if args else False
        if function in READS:
            if not made_here:
                self.waits.found(function.__name__)
            return self._on_host(function, args, kwargs) if made_here else function(*args, **kwargs)
        if function is torch.Tensor.to:
            return self._moved(made_here, function, args, kwargs)
        if function is torch.nn.functional.one_hot and args[1:]:
            return self._on_host(function, args, kwargs)  # only on a CPU it looks for the highest class
        if function in FROM_NUMBERS and (kwargs.get("device") not in (None, "cpu") or function is torch.Tensor.new_tensor):
            self.waits.found(f"{function.__name__} on a device")
        if function in INDEXED:
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, list) for part in parts):
                self.waits.found("a list as index")
        result = function(*args, **kwargs)
        drawn = kwargs.get("generator") is not None
        numbers = function in FROM_NUMBERS and not (args and isinstance(args[0], torch.Tensor))
        if isinstance(result, torch.Tensor) and (drawn or numbers):
            result.made_on_host = True
        return result

    def _moved(self, made_here, function, args, kwargs):
        """A copy between host and device: without waiting, or found."""
        to_host = "cpu" in args[1:] or kwargs.get("device") == "cpu"
        if (to_host or made_here) and not kwargs.get("non_blocking"):
            self.waits.found("to the host" if to_host else "from the host")
        result = function(*args, **kwargs)
        if to_host:
            result.made_on_host = True
        return result

    def _on_host(self, function, args, kwargs):
        self.waits.reading_host = True
        try:
            return function(*args, **kwargs)
        finally:
            self.waits.reading_host = False
