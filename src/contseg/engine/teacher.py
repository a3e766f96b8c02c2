"""The segmenter of the step before, and what a method stored with the segmenter that a run starts from."""

from pathlib import Path

from torch import Tensor

from contseg.data.classes import ClassTable, class_differences
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.interop.pretrained import is_pretrained, load_statistics
from contseg.interop.segmenter_file import load_segmenter
from contseg.models.segmenter import Segmenter
from contseg.scenarios.step import Step


def segmenter_before(run: Run, step: Step, student: Segmenter | None) -> Segmenter | None:
    """The segmenter after the step before, or None at step 0.

    Args:
        student: trained on the step before in this process; or None after a resume, when it is read from its file.

    Raises:
        ContsegError: the file cannot be read, or contains the segmenter of another step.
    """
    if step.index == 0 or student is not None:
        return student
    path = run.segmenter_path(step.index - 1)
    segmenter, classes = load_segmenter(path)
    check_teacher(path, classes, sum(segmenter.widths), step)
    return segmenter


def statistics_beside(path: Path) -> dict[str, Tensor]:
    """What a method stored with a segmenter: the statistics of its folder, or the state of the method after a step of a run.

    Args:
        path: folder of `save_pretrained`, or file of a segmenter.

    Raises:
        ContsegError: the files are damaged.
    """
    if is_pretrained(path):
        return load_statistics(path)
    if path.parent.parent.name == "steps":
        state = Run(path.parent.parent.parent).load_state(int(path.parent.name))
        return state.method if state else {}
    return {}


def check_teacher(path: Path, classes: ClassTable, outputs: int, step: Step) -> None:
    """Raise ContsegError unless a segmenter has the old classes of a step.

    Args:
        path: of the segmenter.
        classes: of the segmenter, in output order.
        outputs: their number; one more than classes if the first output is "unknown".

    Raises:
        ContsegError: the classes differ by name or order, or the number of outputs differs.

    Example:
        >>> table = ClassTable.of(["background", "cat", "dog"])
        >>> step = Step.of(table, old=2)
        >>> check_teacher(Path("a"), table.subset([0, 1]), 2, step)
        >>> check_teacher(Path("a"), table.subset([0, 2]), 2, step)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        contseg.errors.ContsegError: a: has 2 classes where step 1 continues 2; number 1 is 'dog' and must be 'cat'; ...
    """
    way = "restore the file that this run wrote, or start over with --overwrite"
    wanted = step.table.names[: step.old_count]
    for place, found, meant in class_differences(classes.names, wanted):
        raise ContsegError(
            f"{path}: has {len(classes)} classes where step {step.index} continues {len(wanted)};"
            f" number {place} is {found} and must be {meant}; {way}"
        )
    if outputs != step.old_outputs:
        unknown = ' and the output "unknown"' if step.has_unknown else ""
        raise ContsegError(
            f"{path}: has {outputs} outputs where step {step.index} continues {step.old_outputs}"
            f" ({step.old_count} classes{unknown}); {way}"
        )
