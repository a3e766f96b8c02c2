"""Return to the last good checkpoint of a run with damaged files."""

from contseg.engine.run import SEGMENTER, STATE, STATE_BEFORE, Run
from contseg.engine.step_state import StepState
from contseg.errors import ContsegError, counted


def recover(run: Run) -> list[str]:
    """Make the last good state of a run the one from which a resume continues.

    A state is good if it is not damaged, and the segmenter that training continues with is not damaged either: its own if
    the step is finished, else that of the step before. States after the last good one are deleted; what they contain is
    trained again.

    Returns:
        a line for each damaged file, and a last one on where the run continues; empty for a sound run.

    Raises:
        ContsegError: manifest.json is damaged, or it and the files of the steps are of different runs; nothing is deleted.
    """
    found = _lost(run)
    for step in range(run.last_begun(), -1, -1):
        for name in (STATE, STATE_BEFORE):
            path = run.state_path(step, name)
            try:
                state = run.load_state(step, name)
                if state is not None:
                    _require_segmenter(run, step, state)
            except ContsegError as error:
                _require_own_steps(run)
                found.append(str(error).rsplit("; ", 1)[0])
                run.remove(path)
                continue
            if state is None:
                continue
            if name == STATE_BEFORE:
                run.manifest.rename(path, run.state_path(step))
            return [*found, f"continuing {_place(step, state)}"] if found else []
    return [*found, "continuing from the start of step 0"] if found else []


def _lost(run: Run) -> list[str]:
    """A line on the finished steps after the last saved state, whose states were deleted; [] for a sound run."""
    last, finished = run.last_begun(), run.finished_steps()
    return [f"{run.state_path(last + 1)}: missing, although the step is finished"] if finished > last + 1 else []


def _require_own_steps(run: Run) -> None:
    """Raise ContsegError if no segmenter and no state is the one that was written: damage is not so thorough."""
    written = [run.folder / name for name in run.manifest.entries()]
    files = [path for path in written if path.name in (STATE, STATE_BEFORE, SEGMENTER) and path.is_file()]
    if not any(path.name == SEGMENTER for path in files) or any(map(run.manifest.is_sound, files)):
        return
    raise ContsegError(
        f"{run.manifest.path}: fits none of the {len(files)} segmenters and states in steps/, so one of the two is of"
        " another run; restore it, or move steps/ away to train again"
    )


def _require_segmenter(run: Run, step: int, state: StepState) -> None:
    needed = step if state.finished else step - 1
    if needed < 0:
        return
    path = run.segmenter_path(needed)
    if not path.is_file():
        raise ContsegError(f"{path}: missing")
    run.manifest.check(path)


def _place(step: int, state: StepState) -> str:
    if state.finished:
        return f"after step {step}"
    within = f" and {counted(state.within['updates'], 'update')}" if state.within else ""
    return f"after {counted(state.epochs_done, 'epoch')}{within} of step {step}"
