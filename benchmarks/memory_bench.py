"""What a training step keeps in memory, counted on tensors without values, so that any size is counted exactly.

A step runs on PyTorch's `meta` device, where operations give shapes and no numbers. Bytes are counted when a tensor is made
and when it is freed; what a GPU adds (workspaces of convolutions, fragments, the context of CUDA) is not in it.

    python -m benchmarks.memory_bench      # R101, crop 512, batch 24, 151 classes, MiB
"""

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contseg.methods.method import StepContext
from contseg.methods.registry import make_method
from contseg.models.options import NetworkOptions
from contseg.models.recomputation import recomputed
from contseg.models.segmenter import Segmenter
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step

OLD, NEW, CROP, IMAGES = 101, 50, 512, 24
MIB, GIB = 2**20, 2**30


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that exist, and their largest sum.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def add(self, *tensors: torch.Tensor) -> None:
        """Count tensors that were made before."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata in self._seen:
                continue
            self._seen.add(storage._cdata)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Call a function of PyTorch and count what it returns."""
        result = function(*args, **(kwargs or {}))
        self.add(*(leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)))
        return result


class SavedBytes(saved_tensors_hooks):
    """Counts the bytes that are saved for backward inside the block, weights and each storage once aside.

    Args:
        own: tensors that are kept anyway.
    """

    def __init__(self, *own: torch.Tensor) -> None:
        self._own = {tensor.untyped_storage()._cdata for tensor in own}
        self._kept: dict[int, torch.Tensor] = {}
        super().__init__(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        self._kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    @property
    def bytes(self) -> int:
        """What was saved so far."""
        return sum(value.untyped_storage().nbytes() for key, value in self._kept.items() if key not in self._own)


def saved_by_network(memory: str, backbone: str = "resnet101", images: int = IMAGES, crop: int = CROP) -> int:
    """Bytes that a student of 151 classes saves for backward in a forward pass."""
    student = Segmenter(NetworkOptions(backbone=backbone), [OLD, NEW]).train().to("meta")
    saved = SavedBytes(*student.parameters(), *student.buffers())
    with _context(memory, student), saved:
        student(torch.empty(images, 3, crop, crop, device="meta"))
    return saved.bytes


def _context(memory: str, student: Segmenter) -> Any:
    return recomputed(student.backbone) if memory == "lean" else nullcontext()


def training_peak(memory: str, name: str = "mib", images: int = IMAGES, crop: int = CROP) -> dict[str, int]:
    """Bytes of a training step of R101 in float32: weights of student and teacher, gradients, momentum, and the peak.

    Returns:
        `weights` (both networks), `gradients`, `optimiser`, and `peak` with all of them.
    """
    method = make_method(name)
    network = NetworkOptions(backbone="resnet101")
    teacher, student = (Segmenter(network, [OLD, *new]).to("meta") for new in ([], [NEW]))
    step = Step.of([*map(str, range(OLD + NEW))], OLD)
    method.prepare(student, step)
    student.train()
    student.freeze_unused(method.taps)
    teacher.eval().requires_grad_(False)
    batch = Batch(
        torch.empty(images, 3, crop, crop, dtype=torch.uint8, device="meta"),
        torch.empty(images, crop, crop, dtype=torch.int64, device="meta"),
        tuple(map(str, range(images))),
        torch.ones(images, OLD + NEW, dtype=torch.bool, device="meta"),
    )
    context = StepContext.for_loop(student, teacher, step, method, [batch])
    parameters = [value for value in student.parameters() if value.requires_grad]
    gradients = sum(value.nbytes for value in parameters)
    both = [*student.parameters(), *student.buffers(), *teacher.parameters(), *teacher.buffers()]
    momentum = [torch.empty_like(value) for value in parameters]
    with LiveBytes() as live:
        live.add(*both, *momentum, batch.images, batch.labels)
        with torch.no_grad():
            old = teacher(teacher.normalise(batch.images), method.taps)
        with _context(memory, student):
            new = student(student.normalise(batch.images), method.taps)
        terms = method.losses(method.relabel(batch, old, context), new, old, context)
        torch.stack(list(terms.values())).sum().backward()
    weights = sum(value.nbytes for value in both)
    return {"weights": weights, "gradients": gradients, "optimiser": gradients, "peak": live.peak}


def _mib(memory: str) -> Callable[[], float]:
    return lambda: training_peak(memory)["peak"] / MIB


MEMORY: dict[str, Callable[[], float]] = {
    "full-memory": _mib("full"),
    "lean-memory": _mib("lean"),
}
"""Name: function that counts MiB."""


def main() -> None:
    print(f"R101-D16, crop {CROP}, batch {IMAGES}, {OLD + NEW} classes, float32, MiB; GiB, counted, of 24")
    for memory in ("full", "lean"):
        figures = training_peak(memory)
        parts = ", ".join(f"{name} {value / GIB:.2f}" for name, value in figures.items())
        print(f"{memory}: saved by the network {saved_by_network(memory) / GIB:.2f}, {parts}", flush=True)


if __name__ == "__main__":
    main()
