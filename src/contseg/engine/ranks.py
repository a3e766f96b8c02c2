"""Devices and processes: one code path from a laptop CPU to several nodes, on Lightning Fabric."""

import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor

from contseg.engine.devices import accelerator_of, precision_of
from contseg.engine.loading import Shard
from contseg.engine.options import TrainingOptions
from contseg.engine.spawned import run_spawned
from contseg.errors import ContsegError
from contseg.ranks import Ranks


def joined_rank() -> int | None:
    """The rank of this process if torchrun or SLURM started one process per rank, else None."""
    for marker, rank in (("TORCHELASTIC_RUN_ID", "RANK"), ("SLURM_NTASKS", "SLURM_PROCID")):
        if marker in os.environ and rank in os.environ:
            return int(os.environ[rank])
    return None


def make_fabric(options: TrainingOptions) -> Fabric:
    """The Fabric of a run.

    Under torchrun or SLURM the processes exist already, and strategy `ddp` joins them. Otherwise this process spawns one
    process per device.

    Raises:
        ContsegError: the accelerator is not available, or the batch does not divide over the ranks.
    """
    world = options.devices * options.nodes
    if options.batch % world:
        raise ContsegError(f"training.batch: {options.batch} images do not divide over {world} ranks; choose a multiple")
    accelerator = accelerator_of(options)
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ContsegError("training.accelerator: no CUDA device here; use accelerator=cpu or auto")
    if accelerator == "cuda" and torch.cuda.device_count() < options.devices:
        raise ContsegError(f"training.devices: {options.devices} GPUs requested, {torch.cuda.device_count()} available")
    strategy = "auto" if world == 1 else "ddp_spawn" if joined_rank() is None else "ddp"
    plugins: list[Any] = []
    precision: Any = precision_of(options)
    if precision == "16-mixed":
        # a plugin, as Fabric silently replaces fp16 by bf16 on CPU
        plugins.append(MixedPrecision("16-mixed", accelerator, torch.amp.GradScaler(accelerator)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Fabric(
            accelerator=accelerator,
            devices=options.devices,
            num_nodes=options.nodes,
            strategy=strategy,
            precision=None if plugins else "32-true" if precision == "32" else precision,
            plugins=plugins,
        )


def launch(fabric: Fabric, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run `function(fabric, *arguments)` on every rank and return what rank 0 returns.

    Raises:
        ContsegError: raised on a rank, without the traceback of its process; or a spawned rank died.
        Interrupted: a signal ended the ranks.
    """
    if fabric.strategy.launcher is not None and joined_rank() is None:  # under torchrun and SLURM the ranks exist already
        return run_spawned(fabric, function, arguments)
    return fabric.launch(function, *arguments)


@contextmanager
def own_threads(count: int | None) -> Iterator[None]:
    """Use `count` CPU threads inside the block, and restore the caller's number; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def shard_of(fabric: Fabric) -> Shard:
    """The part of the data that belongs to this rank."""
    return Shard(fabric.global_rank, fabric.world_size)


def ranks_of(fabric: Fabric) -> Ranks:
    """Sums and gathers over the ranks of a run."""
    if fabric.world_size == 1:
        return Ranks()

    def stacked(tensor: Tensor) -> Tensor:
        return cast(Tensor, fabric.all_gather(tensor, sync_grads=tensor.requires_grad))

    def gather(tensor: Tensor) -> Tensor:
        return stacked(tensor).flatten(0, 1)

    def total(tensor: Tensor) -> Tensor:
        return stacked(tensor).sum(dim=0)

    return Ranks(total, gather, fabric.global_rank, fabric.world_size)


def grad_scaler_of(fabric: Fabric) -> torch.amp.GradScaler | None:
    """The gradient scaler of fp16, or None at other precisions."""
    precision = fabric.strategy.precision
    return precision.scaler if isinstance(precision, MixedPrecision) else None


def scaler_state(fabric: Fabric) -> dict[str, Any]:
    """State of the gradient scaler of fp16, for checkpoints; {} at other precisions."""
    scaler = grad_scaler_of(fabric)
    return scaler.state_dict() if scaler else {}


def restore_scaler(fabric: Fabric, saved: dict[str, Any]) -> None:
    """Restore what `scaler_state` returned; {} changes nothing."""
    scaler = grad_scaler_of(fabric)
    if scaler and saved:
        scaler.load_state_dict(saved)


def environment(fabric: Fabric, threads: int | None) -> dict[str, Any]:
    """Versions and hardware, for the report."""
    device = torch.cuda.get_device_name() if fabric.device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "ranks": fabric.world_size,
    }
