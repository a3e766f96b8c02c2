"""A run on one rank: what every part of the engine needs."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from contseg.engine.job import Job, Reporter
from contseg.engine.loading import Shard
from contseg.engine.loggers.loggers import Loggers
from contseg.engine.ranks import ranks_of, shard_of
from contseg.engine.read_only_run import ReadOnlyRun
from contseg.engine.run import Run
from contseg.ranks import Ranks

if TYPE_CHECKING:  # it takes a second to import
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Session:
    """A run on one rank.

    All ranks make the same calls: on ranks other than 0 the run writes nothing and the reporter reports nothing.

    Args:
        fabric: device, precision and processes.
        job: the resolved run.
        run: its folder.
        reporter: of progress.
    """

    fabric: "Fabric"
    job: Job
    run: Run
    reporter: Reporter

    @classmethod
    def of(cls, fabric: "Fabric", job: Job, reporter: Reporter) -> "Session":
        """The session of this rank."""
        if fabric.global_rank == 0:
            return cls(fabric, job, Run(job.folder), reporter)
        return cls(fabric, job, ReadOnlyRun(job.folder), Reporter())

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which does the work that is done once."""
        return self.fabric.global_rank == 0

    @cached_property
    def ranks(self) -> Ranks:
        """Sums and gathers over all ranks."""
        return ranks_of(self.fabric)

    @cached_property
    def loggers(self) -> Loggers:
        """The loggers of the run; none on ranks other than 0."""
        names = self.job.training.loggers if self.leads else []
        return Loggers(self.run, names, self.job.recipe, self.reporter.message)

    @cached_property
    def shard(self) -> Shard:
        """The part of the data that belongs to this rank."""
        return shard_of(self.fabric)
