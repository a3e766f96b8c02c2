"""The segmenter of the step before: where it is found, and whether it is the one that this step continues."""

from itertools import zip_longest
from pathlib import Path

from contseg.data.classes import ClassTable
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.interop.segmenter_file import load_segmenter
from contseg.models.segmenter import Segmenter
from contseg.scenarios.step import Step


def segmenter_before(run: Run, step: Step, student: Segmenter | None) -> Segmenter | None:
    """The segmenter at the end of the step before, or None at step 0.

    Args:
        student: what learned the step before in this process, or None after a resume: then it is read from its file.

    Raises:
        ContsegError: the file cannot be read, or does not hold what this step continues.
    """
    if step.index == 0 or student is not None:
        return student
    path = run.segmenter_path(step.index - 1)
    segmenter, classes = load_segmenter(path)
    check_teacher(path, classes, sum(segmenter.widths), step)
    return segmenter


def check_teacher(path: Path, classes: ClassTable, outputs: int, step: Step) -> None:
    """Nothing, if a segmenter with these classes is what a step continues: its labels and its teacher must count alike.

    Args:
        path: of the segmenter.
        classes: that it was trained with, in output order.
        outputs: how many it has; one more than classes where they begin with the unknown.

    Raises:
        ContsegError: the classes are not the old ones of the step, by name and in order, or the outputs do not fit.

    Example:
        >>> table = ClassTable.of(["background", "cat", "dog"])
        >>> step = Step(1, (2,), (0, 1), *[None] * 3, table)
        >>> check_teacher(Path("a"), table.subset([0, 1]), 2, step)
        >>> check_teacher(Path("a"), table.subset([0, 2]), 2, step)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        contseg.errors.ContsegError: a: knows 2 classes where step 1 continues 2; number 1 is 'dog' and must be 'cat'; ...
    """
    way = "put back the file that this run wrote, or start over with --overwrite"
    wanted = step.table.names[: step.old_count]
    for place, (name, other) in enumerate(zip_longest(classes.names, wanted)):
        if name != other:
            found, meant = (f"'{one}'" if one is not None else "nothing" for one in (name, other))
            raise ContsegError(
                f"{path}: knows {len(classes)} classes where step {step.index} continues {len(wanted)};"
                f" number {place} is {found} and must be {meant}; {way}"
            )
    if outputs != step.old_outputs:
        unknown = ' and the output "unknown"' if step.has_unknown else ""
        raise ContsegError(
            f"{path}: has {outputs} outputs where step {step.index} continues {step.old_outputs}"
            f" ({step.old_count} classes{unknown}); {way}"
        )
