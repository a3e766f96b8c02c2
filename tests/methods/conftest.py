"""A step in the middle of a scenario: two old classes beside background, one new class."""

from dataclasses import dataclass

import pytest
import torch

from contseg.data.datasets.folder import Folder
from contseg.methods.method import Method, StepContext
from contseg.models.options import NetworkOptions, first_widths
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.scenarios.batch import Batch
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import Scenario
from contseg.scenarios.step import Step

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


def counted_from_unknown(batch: Batch) -> Batch:
    """The labels as policy `ssul` has them: background is unknown, and classes move up by one."""
    labels = batch.labels.where((batch.labels == 0) | (batch.labels == 255), batch.labels + 1)
    annotated = torch.cat([torch.zeros(len(labels), 1, dtype=torch.bool), batch.annotated], dim=1)
    return Batch(batch.images, labels, batch.names, annotated)


@dataclass
class Lesson:
    """A student and its teacher in one step, asked as the engine asks them."""

    method: Method
    context: StepContext

    def fitting(self, batch: Batch) -> Batch:
        """The batch in the labels of the step."""
        outputs = sum(self.context.student.widths)
        if batch.annotated.shape[1] != outputs and self.context.step.has_unknown:
            batch = counted_from_unknown(batch)
        return Batch(batch.images, batch.labels, batch.names, batch.annotated[:, :outputs], batch.weights)

    def forward(self, batch: Batch) -> tuple[SegmenterOutput, SegmenterOutput | None]:
        """What student and teacher say of a batch."""
        teacher = self.context.predict_teacher(batch) if self.context.predict_teacher else None
        student = self.context.student
        taps = self.method.taps if teacher else self.method.first_taps
        return student(student.normalise(batch.images), taps=taps), teacher

    def terms(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The method's terms, after its relabelling."""
        batch = self.fitting(batch)
        student, teacher = self.forward(batch)
        return self.method.losses(self.method.relabel(batch, teacher, self.context), student, teacher, self.context)

    def learn(self, batches: list[Batch], lr: float = 0.01) -> None:
        """Updates by plain gradient descent, with every call of the engine."""
        parameters = [
            p for group in self.method.parameter_groups(self.context.student, self.context.step) for p in group["params"]
        ]
        for batch in batches:
            terms = self.terms(batch)
            sum(term for name, term in terms.items() if name not in self.method.inert_terms).backward()
            self.method.after_backward(self.context)
            with torch.no_grad():
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter -= lr * parameter.grad
                        parameter.grad = None
            self.method.after_update(self.context)
        self.method.after_epoch(self.context)
        self.method.after_step(self.context)


def look_at_first_step(method: Method, segmenter: Segmenter, step: Step) -> None:
    """Step 0 as the engine calls it for a segmenter that was given: no update, but the method may remember what it sees."""
    context = StepContext.for_loop(segmenter, None, step, method, epochs=0)
    seen = [random_batch(seed, lowest=1) for seed in (20, 21)]
    seen = [
        Batch(each.images, each.labels.where(each.labels != OLD, 1), each.names, each.annotated[:, :OLD]) for each in seen
    ]
    context.loader = [Lesson(method, context).fitting(each) for each in seen]
    method.before_step(context)
    method.after_step(context)


@pytest.fixture
def make_scenario(make_folder):
    folder = make_folder()
    return lambda method: Scenario(
        Folder(folder), ScenarioOptions(split="2-1", policy="ssul" if method.needs_unknown else "plop")
    )


@pytest.fixture
def give_lesson(make_scenario):
    """`give_lesson(method, index)`: prepare and before_step have been called; `index` 0 has no teacher.

    A method that needs the output "unknown" is given the network of SSUL, and `network_of` RCIL that with two branches or
    MBS that with class tokens.
    """

    def give(method: Method, index: int = 1, network_of: str | None = None) -> Lesson:
        torch.manual_seed(0)
        options = NetworkOptions(backbone="resnet18", width=4, head_width=8, initialisation="he")  # several classes win
        if method.needs_unknown:
            options = options.changed(head="deeplabv3-ssul", unknown=True, decision="sigmoid")
        if (network_of or method.name) == "rcil":
            options = options.changed(backbone={"branches": 2}, head="deeplabv3-rcil")
        if (network_of or method.name) == "mbs":
            options = options.changed(head="mask-transformer")
        if "learned" not in method.backgrounds:
            head = "deeplabv3-barm" if "residual" in method.backgrounds else "deeplabv3-dkd"
            options = options.changed(head=head, background=method.backgrounds[0], decision="sigmoid")
        teacher, student = (Segmenter(options, first_widths(options, OLD)) for _ in range(2))
        if method.new_classes_start_from == "reserved":
            for segmenter in (teacher, student):
                segmenter.reserve([1, 2])
        with torch.no_grad():  # a teacher with opinions, sure of some pixels
            first = teacher.classifier.steps[2 if method.needs_unknown else 0]
            parameter = "gain" if options.head.tokens else "3.weight" if teacher.classifier.hidden else "weight"
            first.get_parameter(parameter).mul_(2)
        student.load_state_dict(teacher.state_dict())
        if index:
            student.grow(1, method.new_classes_start_from)
            if (
                "learned" not in method.backgrounds
            ):  # norms are frozen: unmoved, the student would repeat its teacher exactly
                with torch.no_grad():
                    for parameter in student.head.parameters():
                        parameter += 0.02 * torch.randn(parameter.shape)
        student.train()
        teacher.eval()
        scenario = make_scenario(method)
        if index:
            look_at_first_step(method, teacher, scenario[0])
        context = StepContext.for_loop(student, teacher if index else None, scenario[index], method)
        method.prepare(student, context.step)
        student.freeze_unused(method.taps if context.teacher else method.first_taps)
        lesson = Lesson(method, context)
        context.loader = [lesson.fitting(random_batch(seed)) for seed in (10, 11)]
        method.before_step(context)
        return lesson

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
