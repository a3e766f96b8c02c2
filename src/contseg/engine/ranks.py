"""Devices and processes: one code path from a laptop CPU to several nodes, on Lightning Fabric."""

import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from contseg import __version__
from contseg.engine.code import commit
from contseg.engine.devices import accelerator_of, precision_of
from contseg.engine.loading import Shard
from contseg.engine.options import TrainingOptions
from contseg.engine.spawned import run_spawned
from contseg.engine.waits import waiting_for
from contseg.errors import ContsegError
from contseg.lock import owned
from contseg.ranks import Ranks

if TYPE_CHECKING:  # it takes a second to import
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import ClusterEnvironment


@dataclass(frozen=True)
class Launcher:
    """A program that started one process per rank.

    Args:
        variable: the environment variable with the number of processes.
        processes: their number.
        rank: of this process.
    """

    variable: str
    processes: int
    rank: int

    @classmethod
    def found(cls) -> "Launcher | None":
        """The launcher of this process: torchrun, or another one with its variables, or srun; None if it was started alone.

        The variables of a SLURM allocation are no sign of it: batch scripts and interactive shells have them too. Those of a
        step are, except in a shell that is itself a step.
        """
        if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys():
            return cls("WORLD_SIZE", _number("WORLD_SIZE"), _number("RANK"))
        shell = "SLURM_PTY_PORT" in os.environ or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
        if {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID"} <= os.environ.keys() and not shell:
            tasks = _number("SLURM_STEP_NUM_TASKS")
            return cls("SLURM_STEP_NUM_TASKS", tasks, _number("SLURM_PROCID")) if tasks > 1 else None
        return None

    @property
    def environment(self) -> "ClusterEnvironment":
        """How Fabric finds the other processes."""
        from lightning_fabric.plugins.environments import TorchElasticEnvironment

        from contseg.engine.environments import SlurmStep

        return TorchElasticEnvironment() if self.variable == "WORLD_SIZE" else SlurmStep(self.processes)


def _number(variable: str) -> int:
    value = os.environ[variable]
    if not value.isdecimal():
        raise ContsegError(f"{variable}={value}: is set in the environment and is not a number; unset it")
    return int(value)


def joined_rank() -> int | None:
    """The rank of this process if a launcher started one process per rank, else None."""
    launcher = Launcher.found()
    return launcher.rank if launcher else None


def owned_by_rank_0(folder: Path) -> AbstractContextManager[None]:
    """Own the folder of a run; ranks other than 0 that a launcher started do not."""
    return nullcontext() if joined_rank() else owned(folder)


def _require_matching_world(options: TrainingOptions, launcher: Launcher | None) -> None:
    """Raise ContsegError if the number of processes that a launcher started is not the number of ranks."""
    wanted = f"training.devices={options.devices} and training.nodes={options.nodes}"
    variable = launcher.variable if launcher else "WORLD_SIZE"
    started = launcher.processes if launcher else _number(variable) if variable in os.environ else options.ranks
    if started != options.ranks:
        raise ContsegError(
            f"training.devices: {variable}={started} in the environment, but {wanted} make {options.ranks} ranks; set them"
            f" to match the launcher; without a launcher, unset {variable}"
        )
    if options.nodes > 1 and launcher is None:
        raise ContsegError(
            f"training.nodes: {options.nodes} nodes need a launcher that starts the processes, such as torchrun or srun;"
            " use one, or set training.nodes=1"
        )


def require_devices(options: TrainingOptions) -> None:
    """Check that a run can begin on this machine.

    Raises:
        ContsegError: the accelerator is not available, the batch does not divide over the ranks, or a launcher started
            another number of processes.
    """
    world = options.ranks
    _require_matching_world(options, Launcher.found())
    if options.batch % world:
        raise ContsegError(f"training.batch: {options.batch} images do not divide over {world} ranks; choose a multiple")
    accelerator = accelerator_of(options)
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ContsegError("training.accelerator: no CUDA device here; use accelerator=cpu or auto")
    if accelerator == "cuda" and torch.cuda.device_count() < options.devices:
        raise ContsegError(f"training.devices: {options.devices} GPUs requested, {torch.cuda.device_count()} available")


def make_fabric(options: TrainingOptions) -> "Fabric":
    """The Fabric of a run.

    Under torchrun or SLURM the processes exist already, and strategy `ddp` joins them. Otherwise this process spawns one
    process per device.

    Raises:
        ContsegError: see `require_devices`.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.precision import MixedPrecision
    from lightning_fabric.strategies import DDPStrategy

    from contseg.engine.environments import OwnProcesses

    require_devices(options)
    launcher, accelerator = Launcher.found(), accelerator_of(options)
    wait = timedelta(seconds=options.timeout)
    strategy = "auto" if options.ranks == 1 else DDPStrategy(timeout=wait, start_method="popen" if launcher else "spawn")
    plugins: list[Any] = [launcher.environment if launcher else OwnProcesses()]
    precision: Any = precision_of(options)
    half = precision == "16-mixed"
    if half:
        # a plugin, as Fabric silently replaces fp16 by bf16 on CPU
        plugins.append(MixedPrecision("16-mixed", accelerator, torch.amp.GradScaler(accelerator)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Fabric(
            accelerator=accelerator,
            devices=options.devices,
            num_nodes=options.nodes,
            strategy=strategy,
            precision=None if half else "32-true" if precision == "32" else precision,
            plugins=plugins,
        )


def launch(fabric: "Fabric", function: Callable[..., Any], *arguments: Any) -> Any:
    """Run `function(fabric, *arguments)` on every rank and return what rank 0 returns.

    Raises:
        ContsegError: raised on a rank, without the traceback of its process; or a spawned rank died.
        Interrupted: a signal ended the ranks.
    """
    if fabric.strategy.launcher is not None and joined_rank() is None:  # under torchrun and SLURM the ranks exist already
        return run_spawned(fabric, function, arguments)
    with waiting_for("the start"):
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


def shard_of(fabric: "Fabric") -> Shard:
    """The part of the data that belongs to this rank."""
    return Shard(fabric.global_rank, fabric.world_size)


def ranks_of(fabric: "Fabric") -> Ranks:
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


def grad_scaler_of(fabric: "Fabric") -> torch.amp.GradScaler | None:
    """The gradient scaler of fp16, or None at other precisions."""
    from lightning_fabric.plugins.precision import MixedPrecision

    precision = fabric.strategy.precision
    return precision.scaler if isinstance(precision, MixedPrecision) else None


def scaler_state(fabric: "Fabric") -> dict[str, Any]:
    """State of the gradient scaler of fp16, for checkpoints; {} at other precisions."""
    scaler = grad_scaler_of(fabric)
    return scaler.state_dict() if scaler else {}


def restore_scaler(fabric: "Fabric", saved: dict[str, Any]) -> None:
    """Restore what `scaler_state` returned; {} changes nothing."""
    scaler = grad_scaler_of(fabric)
    if scaler and saved:
        scaler.load_state_dict(saved)


def environment(fabric: "Fabric", threads: int | None) -> dict[str, Any]:
    """Date, commit, versions and hardware, for the report."""
    device = torch.cuda.get_device_name() if fabric.device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "contseg": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "ranks": fabric.world_size,
    }
