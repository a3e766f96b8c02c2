"""How Fabric finds the processes of a run."""

import os

from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment


class SlurmStep(SLURMEnvironment):
    """The processes that srun started, however their number was set: Fabric's own checks refuse `srun --ntasks`.

    Args:
        processes: of the step, which may have fewer than its allocation.
    """

    def __init__(self, processes: int) -> None:
        super().__init__()
        self._processes = processes

    @staticmethod
    def _validate_srun_variables() -> None:
        pass

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Nothing: the number of processes was compared with the options."""

    def world_size(self) -> int:
        """Tasks of the step, not of the allocation."""
        return self._processes


class OwnProcesses(LightningEnvironment):
    """A process that was started alone: what launchers left in the environment variables is ignored."""

    def __init__(self) -> None:
        super().__init__()
        self._process = os.getpid()

    @property
    def creates_processes_externally(self) -> bool:
        """This process spawns the others."""
        return False

    def local_rank(self) -> int:
        """Of this process, or of a rank that it spawned, for which Fabric sets the variable."""
        return 0 if os.getpid() == self._process else super().local_rank()

    def node_rank(self) -> int:
        """Of the only node."""
        return 0
