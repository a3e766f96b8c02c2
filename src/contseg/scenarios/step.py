"""One step of a scenario."""

from dataclasses import dataclass, field

from contseg.data.classes import ClassTable
from contseg.scenarios.batch import Samples


@dataclass(frozen=True)
class Step:
    """One step: what is new, what is known, and the samples to learn, select and test on.

    Class tuples hold dataset ids; the place of a class among the outputs is its position in `seen_classes`, plus one where
    the outputs begin with the unknown.

    Attributes:
        index: 0 for the first.
        new_classes, old_classes: of this step and of earlier ones; a step that brings a domain has no new ones.
        train, val, test: what is learned, held out, and measured after the step (everything seen so far). Held-out images
            have the labels of the step. Where these name no old class, what would be background has the label
            `seen_count`: "none of the classes that are annotated here", which may be background or an old class.
        table: of the seen classes.
        domains: of the training images; empty where the dataset tells none or the scenario does not care.
        memory: exemplars of earlier steps, a part per step, with the labels they had there.
        has_unknown: the outputs begin with "unknown" (label policy `ssul`).
    """

    index: int
    new_classes: tuple[int, ...]
    old_classes: tuple[int, ...]
    train: Samples
    val: Samples
    test: Samples
    table: ClassTable = field(repr=False)
    domains: tuple[str, ...] = ()
    memory: tuple[Samples, ...] = ()
    has_unknown: bool = False

    @property
    def seen_classes(self) -> tuple[int, ...]:
        """Old classes, then new ones."""
        return self.old_classes + self.new_classes

    @property
    def old_count(self) -> int:
        """Classes before this step, background among them; 0 at step 0."""
        return len(self.old_classes)

    @property
    def new_count(self) -> int:
        """Classes added by this step; at step 0 background is one of them."""
        return len(self.new_classes)

    @property
    def seen_count(self) -> int:
        """Classes after this step."""
        return len(self.old_classes) + len(self.new_classes)

    @property
    def old_outputs(self) -> int:
        """Outputs before this step: the old classes, and the unknown if there is one; 0 at step 0."""
        return self.old_count + int(self.has_unknown) if self.old_count else 0

    @property
    def foreground(self) -> int:
        """The first output that stands for a class: those before it are background, and the unknown if there is one."""
        return 1 + int(self.has_unknown)
