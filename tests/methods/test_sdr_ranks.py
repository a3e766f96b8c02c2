"""SDR on several ranks learns from the classes of all images; quickly, with threads for ranks."""

import copy
import threading
from dataclasses import replace

import torch

from contseg.methods.sdr import SDR
from contseg.methods.sdr_released import SDRReleased
from contseg.models.segmenter import SegmenterOutput
from contseg.ranks import Ranks


class Threads:
    """Ranks as threads: what each gives is seen by all, graphs included."""

    def __init__(self, count):
        self.given, self.barrier = [None] * count, threading.Barrier(count, timeout=60)

    def exchange(self, rank, tensor):
        self.given[rank] = tensor
        self.barrier.wait()
        seen = list(self.given)
        self.barrier.wait()
        return seen

    def ranks(self, rank):
        return Ranks(
            lambda tensor: torch.stack(self.exchange(rank, tensor)).sum(dim=0),
            lambda tensor: torch.cat(self.exchange(rank, tensor)),
            rank,
            len(self.given),
        )

    def run(self, work):
        results = [None] * len(self.given)

        def one(rank):
            results[rank] = work(rank, self.ranks(rank))

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(len(results))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def test_the_mean_of_their_losses_has_the_value_and_the_gradient_of_one_process(give_lesson, batch):
    lesson = give_lesson(SDR())
    lesson.context.student.double()
    lesson.context.teacher.double()
    batch.labels[0][batch.labels[0] == 3] = 0  # the first rank misses a class, and all have other maxima
    start, context = lesson.method, lesson.context
    context.student.eval()  # norms of every image on its own
    student, teacher = lesson.forward(batch)
    tap = student.features["stage4"]

    def learn(rows, ranks):
        method = SDR()
        method.load_state_dict(start.state_dict())
        part = replace(batch, **{key: getattr(batch, key)[rows] for key in ("images", "labels", "annotated")})
        said, old = SegmenterOutput(student.logits[rows], {"stage4": tap[rows]}), SegmenterOutput(teacher.logits[rows])
        return method.losses(part, said, old, replace(context, ranks=ranks)), method.state

    (whole, state), (one, two, three) = (
        learn(slice(0, 3), Ranks()),
        Threads(3).run(lambda rank, ranks: learn(slice(rank, rank + 1), ranks)),
    )
    for name, value in whole.items():
        together = torch.stack([terms[name] for terms, _ in (one, two, three)]).mean()
        assert torch.allclose(together, value, rtol=1e-9), name
        source = student.logits if name in ("cross_entropy", "distillation") else tap
        found, expected = (torch.autograd.grad(each, source, retain_graph=True)[0] for each in (together, value))
        assert torch.allclose(found, expected, rtol=1e-7, atol=1e-15), name
    for _, own in (one, two, three):
        assert torch.equal(own["counts"], state["counts"])
        assert torch.allclose(own["prototypes"], state["prototypes"], rtol=1e-9)


def test_released_ranks_end_a_step_with_the_prototypes_of_the_first(give_lesson):
    lesson = give_lesson(SDRReleased())
    mine = copy.deepcopy(lesson.method.state_dict())
    first = {name: value + 1 for name, value in mine.items()}
    lesson.context.ranks = Ranks(gather=lambda value: torch.cat([value + 1, value]), rank=1, count=2)
    lesson.method.after_step(lesson.context)
    assert all(torch.equal(value, first[name]) for name, value in lesson.method.state.items())
