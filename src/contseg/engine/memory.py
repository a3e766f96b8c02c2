"""Peak memory of this process."""

import sys

import torch


def peak_memory(on_gpu: bool) -> int | None:
    """Peak memory so far in bytes: what PyTorch reserved on the GPU, or main memory; None if the system reports none."""
    if on_gpu:
        return torch.cuda.max_memory_reserved()
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
