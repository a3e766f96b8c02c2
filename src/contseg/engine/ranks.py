"""Devices and processes: one code path from a laptop CPU to several nodes, on Lightning Fabric."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

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
    """This process's rank where torchrun or SLURM started one process per rank, None elsewhere."""
    for marker, rank in (("TORCHELASTIC_RUN_ID", "RANK"), ("SLURM_NTASKS", "SLURM_PROCID")):
        if marker in os.environ and rank in os.environ:
            return int(os.environ[rank])
    return None


def make_fabric(options: TrainingOptions) -> Fabric:
    """The Fabric of a run.

    Under torchrun or SLURM the processes exist already and strategy `ddp` joins them; otherwise several devices are spawned
    from this process.

    Raises:
        ContsegError: no such accelerator here, or the batch does not divide over the ranks.
    """
    world = options.devices * options.nodes
    if options.batch % world:
        raise ContsegError(f"training.batch: {options.batch} images do not divide over {world} ranks; choose a multiple")
    accelerator = accelerator_of(options)
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ContsegError("training.accelerator: no CUDA device here; use accelerator=cpu or auto")
    if accelerator == "cuda" and torch.cuda.device_count() < options.devices:
        raise ContsegError(f"training.devices: asks for {options.devices} GPUs, {torch.cuda.device_count()} are here")
    strategy = "auto" if world == 1 else "ddp_spawn" if joined_rank() is None else "ddp"
    plugins: list[Any] = []
    precision: Any = precision_of(options)
    if precision == "16-mixed":
        # given as a plugin because Fabric turns fp16 on CPU into bf16 silently
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
        ContsegError: what a rank raised, without the traceback of the process it happened in; or a spawned rank ended.
        Interrupted: a signal ended the ranks.
    """
    if fabric.strategy.launcher is not None and joined_rank() is None:  # under torchrun and SLURM the ranks exist already
        return run_spawned(fabric, function, arguments)
    return fabric.launch(function, *arguments)


@contextmanager
def own_threads(count: int | None) -> Iterator[None]:
    """Compute with so many CPU threads, and leave the caller's number as it was; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def shard_of(fabric: Fabric) -> Shard:
    """Which part of the data is this rank's."""
    return Shard(fabric.global_rank, fabric.world_size)


def ranks_of(fabric: Fabric) -> Ranks:
    """Sums and gathers for methods."""
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
    """The gradient scaler of fp16, which belongs into checkpoints."""
    precision = fabric.strategy.precision
    return precision.scaler if isinstance(precision, MixedPrecision) else None


def scaler_state(fabric: Fabric) -> dict[str, Any]:
    """What the gradient scaler of fp16 has found out so far; {} at other precisions."""
    scaler = grad_scaler_of(fabric)
    return scaler.state_dict() if scaler else {}


def restore_scaler(fabric: Fabric, saved: dict[str, Any]) -> None:
    """Put back what `scaler_state` gave; {} changes nothing."""
    scaler = grad_scaler_of(fabric)
    if scaler and saved:
        scaler.load_state_dict(saved)
