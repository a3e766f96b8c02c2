"""Why a run of a sweep failed: a file in its folder, which every leader of the sweep reads."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from contseg.engine.run import Run

FAILED = "failed.json"
"""In the folder of a run that failed, until it is started again."""


@dataclass(frozen=True)
class Failure:
    """The error of a run, and when it occurred, so that the same error of a later attempt is another one."""

    error: str
    when: str

    @classmethod
    def of(cls, folder: Path) -> "Failure | None":
        """The last failure of the run in a folder; None if it did not fail, or was started again."""
        try:
            return cls(**json.loads((folder / FAILED).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def record(run: Run, error: str) -> None:
    """Record why a run failed."""
    run.write_text(FAILED, json.dumps(asdict(Failure(error, datetime.now(UTC).isoformat()))))


def forget(run: Run) -> None:
    """Forget an earlier failure."""
    if (run.folder / FAILED).is_file():
        run.remove(run.folder / FAILED)
