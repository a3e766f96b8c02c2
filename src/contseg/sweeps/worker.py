"""The process of one run of a sweep: `python -m contseg.sweeps.worker RUN CACHE [--accept-changes]`.

It ends with its standard input.
"""

import sys
from pathlib import Path

from contseg.engine.train import train
from contseg.errors import ContsegError
from contseg.interruption import Interrupted, catching, end_with_input
from contseg.recipes.build import make_job, resumed_recipe


def work(folder: Path, cache: Path, accept_changes: bool = False) -> None:
    """Train or resume the run in a folder.

    Args:
        cache: folder in which runs share step 0.
        accept_changes: as in `train`.
    """
    train(make_job(resumed_recipe(folder), folder, cache=cache), accept_changes=accept_changes)


if __name__ == "__main__":
    with catching():
        end_with_input()
        try:
            work(Path(sys.argv[1]), Path(sys.argv[2]), "--accept-changes" in sys.argv[3:])
        except ContsegError as error:
            sys.exit(f"error: {error}")
        except Interrupted as stop:
            sys.exit(stop.exit_code)
