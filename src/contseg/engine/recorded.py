"""Check that a resumed run has the same data as at its start."""

from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.scenarios.changes import is_comparable, plan_changes
from contseg.scenarios.plan import Plan

SHOWN = 3


def require_same_data(run: Run, plan: Plan) -> str:
    """Raise ContsegError if the data differs from that of the run's plan.json.

    Returns:
        a line on what cannot be compared if plan.json is from an earlier version, else "".

    Raises:
        ContsegError: the data changed, or plan.json is not a plan.
    """
    saved = run.plan()
    if saved is None:
        return ""
    try:
        changes, whole = plan_changes(saved, plan), is_comparable(saved)
    except (KeyError, TypeError, AttributeError):
        raise ContsegError(f"{run.folder / 'plan.json'}: not a plan; restore the file that this run wrote") from None
    if changes:
        more = f" (and {len(changes) - SHOWN} more)" if len(changes) > SHOWN else ""
        raise ContsegError(
            f"{run.folder}: the data changed since the run began: {'; '.join(changes[:SHOWN])}{more};"
            " restore the old data, or start another run with --out"
        )
    if whole:
        return ""
    return (
        f"{run.folder / 'plan.json'}: written by an earlier version; the numbers of images and pixels are unchanged, other"
        " changes of the data cannot be detected"
    )
