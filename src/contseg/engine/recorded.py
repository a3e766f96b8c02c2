"""A run goes on with the data that it began with, or not at all."""

from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.scenarios.changes import is_comparable, plan_changes
from contseg.scenarios.plan import Plan

SHOWN = 3


def require_same_data(run: Run, plan: Plan) -> str:
    """Raise ContsegError if a run began with other data than a plan is of.

    Returns:
        What could not be compared, in one line, for plan.json of an earlier version; "" otherwise, or without plan.json.

    Raises:
        ContsegError: what changed.
    """
    saved = run.plan()
    if saved is None:
        return ""
    try:
        changes, whole = plan_changes(saved, plan), is_comparable(saved)
    except (KeyError, TypeError, AttributeError):
        raise ContsegError(f"{run.folder / 'plan.json'}: is no plan; put back the file that this run wrote") from None
    if changes:
        more = f" (and {len(changes) - SHOWN} more)" if len(changes) > SHOWN else ""
        raise ContsegError(
            f"{run.folder}: the data changed since the run began: {'; '.join(changes[:SHOWN])}{more};"
            " put the old data back, or start another run with --out"
        )
    if whole:
        return ""
    return (
        f"{run.folder / 'plan.json'}: was written by an earlier version; numbers of images and pixels are the same, other"
        " changes of the data cannot be noticed"
    )
