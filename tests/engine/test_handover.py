"""The next batch is copied while the present one is computed, and nothing is used before it is there."""

from contextlib import contextmanager

import pytest
import torch

from contseg.data.open import open_dataset
from contseg.data.pipelines.augment import RandomResizedCrop
from contseg.engine.handover import Prefetch, handed_over
from contseg.engine.loading import Batches, epoch_draws
from contseg.engine.options import TrainingOptions
from contseg.errors import ContsegError
from contseg.scenarios.batch import Batch
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import Scenario

CPU = torch.device("cpu")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Recorder:
    """A copy stream that writes down what is asked of it."""

    def __init__(self):
        self.events, self.inside = [], False

    @contextmanager
    def entered(self):
        self.inside = True
        yield
        self.inside = False

    def awaited(self, batch):
        self.events.append(("wait for", batch.names[0]))


class Copied(Batch):
    """A batch that writes down when it is copied."""

    recorder: Recorder

    def to(self, device):
        assert self.recorder.inside, "copied by the stream that computes"
        self.recorder.events.append(("copy", self.names[0]))
        return self


def batch(name: str, kind=Batch) -> Batch:
    images = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2)
    return kind(images, images[:, 0], (name,), torch.ones(1, 4, dtype=torch.bool))


def test_a_batch_is_copied_before_the_one_before_it_is_computed():
    Copied.recorder = recorder = Recorder()
    for one in Prefetch((batch(name, Copied) for name in "abc"), CPU, recorder):
        recorder.events.append(("compute", one.names[0]))
    assert recorder.events == [
        ("copy", "a"), ("wait for", "a"), ("copy", "b"), ("compute", "a"),
        ("wait for", "b"), ("copy", "c"), ("compute", "b"), ("wait for", "c"), ("compute", "c"),
    ]  # fmt: skip


def test_an_error_comes_after_the_batches_before_it():
    def broken():
        yield batch("a")
        raise ContsegError("b.png: cannot be read")

    passing = iter(Prefetch(broken(), CPU, Recorder()))
    assert next(passing).names == ("a",)
    with pytest.raises(ContsegError, match=r"b\.png"):
        next(passing)


def test_without_batches_there_is_none():
    assert not list(Prefetch(iter(()), CPU, Recorder()))
    assert not list(handed_over(iter(()), CPU))


def test_a_batch_that_is_left_ends_what_reads_it():
    ended = []

    def reading():
        try:
            yield batch("a")
            yield batch("b")
        finally:
            ended.append(True)

    passing = iter(Prefetch(reading(), CPU, Recorder()))
    next(passing)
    passing.close()
    del passing
    assert ended


def test_every_tensor_of_a_batch_is_pinned_and_recorded(monkeypatch):
    pinned, recorded = [], []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self.shape) or self)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: recorded.append((self.shape, stream)))
    one = batch("a").relabelled(torch.zeros(1, 2, 2), torch.ones(1))
    assert one.pin_memory().names == ("a",)
    one.record_stream("computing")
    shapes = [one.images.shape, one.labels.shape, one.annotated.shape, one.weights.shape]
    assert sorted(pinned) == sorted(shapes)
    assert sorted(shape for shape, _ in recorded) == sorted(shapes)
    assert {stream for _, stream in recorded} == {"computing"}


@on_a_gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_a_gpu_receives_the_batches_of_a_cpu_and_never_waits(make_folder, workers):
    samples = Scenario(open_dataset("folder", make_folder(count=24)), ScenarioOptions())[0].train
    draws = epoch_draws(len(samples), TrainingOptions(batch=4), step=0, epoch=0)

    def batches(device: str, workers: int = 0) -> Batches:
        return Batches(samples, RandomResizedCrop(16), draws, seed=1, step=0, device=torch.device(device), workers=workers)

    torch.cuda.set_sync_debug_mode("error")
    try:
        found = list(batches("cuda", workers))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(found, batches("cpu"), strict=True):
        assert one.names == other.names
        assert one.images.is_cuda
        assert torch.equal(one.images.cpu(), other.images)
        assert torch.equal(one.labels.cpu(), other.labels)
