"""A step in the middle of a scenario: two old classes beside background, one new class."""

from dataclasses import dataclass

import pytest
import torch

from contseg.data.folder import Folder
from contseg.methods.method import Method, StepContext
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.scenarios.batch import Batch
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import Scenario

OLD, SEEN, SIZE = 3, 4, 64


def random_batch(seed=0, lowest=OLD) -> Batch:
    """Three images with labels lowest..SEEN-1, background and ignore; the new class is the annotated one."""
    generator = torch.Generator().manual_seed(seed)
    shape = (3, SIZE, SIZE)
    labels = torch.randint(lowest, SEEN, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) < 0.6] = 0
    labels[torch.rand(shape, generator=generator) < 0.1] = 255
    images = torch.randint(0, 256, (3, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    annotated = torch.zeros(3, SEEN, dtype=torch.bool)
    annotated[:, lowest:] = True
    return Batch(images, labels, ("a", "b", "c"), annotated)


@dataclass
class Lesson:
    """A student and its teacher in one step, asked as the engine asks them."""

    method: Method
    context: StepContext

    def forward(self, batch: Batch) -> tuple[SegmenterOutput, SegmenterOutput | None]:
        """What student and teacher say of a batch."""
        teacher = self.context.predict_teacher(batch) if self.context.predict_teacher else None
        student = self.context.student
        return student(student.normalise(batch.images), taps=self.method.taps if teacher else ()), teacher

    def terms(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The method's terms, after its relabelling."""
        student, teacher = self.forward(batch)
        return self.method.losses(self.method.relabel(batch, teacher, self.context), student, teacher, self.context)


@pytest.fixture
def scenario(make_folder) -> Scenario:
    return Scenario(Folder(make_folder()), ScenarioOptions(split="2-1"))


@pytest.fixture
def give_lesson(scenario):
    """`give_lesson(method, index)`: before_step has been called; `index` 0 has no teacher."""

    def give(method: Method, index: int = 1) -> Lesson:
        torch.manual_seed(0)
        options = NetworkOptions(backbone="resnet18", width=4, head_width=8)
        teacher, student = (Segmenter(options, [OLD]) for _ in range(2))
        with torch.no_grad():
            teacher.classifier.steps[0].weight.mul_(2)  # a teacher with opinions, sure of some pixels
        student.load_state_dict(teacher.state_dict())
        if index:
            student.grow(1, method.new_classes_start_from)
        student.train()
        teacher.eval()
        has_teacher = bool(index) and method.needs_teacher

        @torch.no_grad()
        def predict_teacher(batch: Batch) -> SegmenterOutput:
            return teacher(teacher.normalise(batch.images), taps=method.taps)

        context = StepContext(
            student=student,
            teacher=teacher if has_teacher else None,
            step=scenario[index],
            epochs=1,
            loader=[random_batch(seed) for seed in (10, 11)],
            predict_teacher=predict_teacher if has_teacher else None,
        )
        method.before_step(context)
        return Lesson(method, context)

    return give


@pytest.fixture
def batch() -> Batch:
    return random_batch()


@pytest.fixture
def exemplar() -> Batch:
    """A replayed batch of old class 2, annotated as such, every pixel of it."""
    annotated = torch.zeros(3, SEEN, dtype=torch.bool)
    annotated[:, 2] = True
    made = random_batch(1)
    return Batch(made.images, torch.full((3, SIZE, SIZE), 2), made.names, annotated)
