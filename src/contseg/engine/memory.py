"""Peak memory of this process."""

import re
import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def peak_memory(on_gpu: bool) -> int | None:
    """Peak memory so far in bytes: what PyTorch reserved on the GPU, or main memory; None if the system reports none.

    Example:
        >>> peak_memory(on_gpu=False) > 1e6
        True
    """
    if on_gpu:
        return torch.cuda.max_memory_reserved()
    if STATUS.is_file():  # Linux, whose getrusage also counts the process that started this one
        found = re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
        if found is not None:
            return 1024 * int(found[1])
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
