"""Batches are the same for any number of workers and ranks."""

import itertools
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contseg.data.open import open_dataset
from contseg.data.pipelines.augment import CentreCrop, RandomResizedCrop, WholeImage
from contseg.data.pipelines.sample import cut_layers
from contseg.engine.loading import (
    Batches,
    Draw,
    Shard,
    StepBatches,
    epoch_draws,
    evaluation_draws,
    updates_per_epoch,
)
from contseg.engine.options import TrainingOptions
from contseg.errors import ContsegError
from contseg.scenarios.batch import Batch
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import Scenario

CPU = torch.device("cpu")
CUT = RandomResizedCrop(16)
QUICK = settings(max_examples=30, deadline=None)


@pytest.fixture
def samples(make_folder):
    return Scenario(open_dataset("folder", make_folder(count=24)), ScenarioOptions())[0].train


def batches(samples, draws, workers=0, pipeline=CUT) -> list[Batch]:
    return list(Batches(samples, pipeline, draws, seed=1, step=0, device=CPU, workers=workers))


def assert_equal(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other) > 0
    for left, right in zip(one, other, strict=True):
        assert left.names == right.names
        for field in ("images", "labels", "annotated"):
            assert torch.equal(getattr(left, field), getattr(right, field)), field


class TestWhatNeverChangesABatch:
    def test_the_number_of_workers(self, samples):
        draws = epoch_draws(len(samples), TrainingOptions(batch=4), step=0, epoch=0)
        assert_equal(batches(samples, draws), batches(samples, draws, workers=2))

    def test_the_size_of_shared_memory(self, samples, monkeypatch):
        draws = epoch_draws(len(samples), TrainingOptions(batch=4), step=0, epoch=0)
        whole = batches(samples, draws)
        monkeypatch.setattr("contseg.engine.devices.ROOM_TO_SHARE", 1 << 60)
        assert_equal(batches(samples, draws, workers=2), whole)

    def test_the_number_of_ranks(self, samples):
        options = TrainingOptions(batch=4)
        whole = batches(samples, epoch_draws(len(samples), options, 0, 0))
        parts = [batches(samples, epoch_draws(len(samples), options, 0, 0, Shard(rank, 2))) for rank in range(2)]
        joined = [
            Batch(
                torch.cat([one.images, two.images]),
                torch.cat([one.labels, two.labels]),
                one.names + two.names,
                torch.cat([one.annotated, two.annotated]),
            )
            for one, two in zip(*parts, strict=True)
        ]
        assert_equal(joined, whole)

    def test_what_was_iterated_before(self, samples):
        loader = Batches(samples, CUT, epoch_draws(len(samples), TrainingOptions(batch=4), 0, 3), seed=1, step=0, device=CPU)
        assert_equal(list(loader), list(loader))


class TestWhatChangesABatch:
    @pytest.mark.parametrize("other", [{"epoch": 1}, {"step": 1}, {"seed": 7}], ids=str)
    def test_the_order_follows_from_seed_step_and_epoch(self, other):
        numbers = {"seed": 42, "step": 0, "epoch": 0} | other
        options = TrainingOptions(batch=4, seed=numbers["seed"])
        first = epoch_draws(40, TrainingOptions(batch=4), step=0, epoch=0)
        second = epoch_draws(40, options, step=numbers["step"], epoch=numbers["epoch"])
        assert [draw.index for batch in first for draw in batch] != [draw.index for batch in second for draw in batch]

    @pytest.mark.parametrize("other", [Draw(1, 0, 0), Draw(0, 1, 0)], ids=["epoch", "position"])
    def test_an_image_is_cut_anew_each_time_it_is_seen(self, samples, other):
        first, second = batches(samples, [[Draw(0, 0, 0)], [other]])
        assert first.names == second.names
        assert not torch.equal(first.images, second.images)


class TestEpochs:
    @settings(deadline=None)
    @given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 3), st.sampled_from([1, 2, 3]))
    def test_shards_together_are_one_process(self, samples, part, accumulate, ranks):
        options = TrainingOptions(batch=part * ranks, accumulate=accumulate)
        shards = [epoch_draws(samples, options, 1, 2, Shard(rank, ranks)) for rank in range(ranks)]
        joined = [[draw for part in parts for draw in part] for parts in zip(*shards, strict=True)]
        assert joined == epoch_draws(samples, options, 1, 2)
        assert len(joined) == updates_per_epoch(samples, options) * accumulate

    @settings(deadline=None)
    @given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 3))
    def test_no_image_comes_twice_before_all_have_come(self, samples, batch, accumulate):
        draws = epoch_draws(samples, TrainingOptions(batch=batch, accumulate=accumulate), 0, 0)
        seen = [draw.index for part in draws for draw in part]
        for start in range(0, len(seen), samples):
            assert len(set(seen[start : start + samples])) == len(seen[start : start + samples])

    def test_a_step_smaller_than_a_batch_repeats_its_images_to_fill_one(self):
        (batch,) = epoch_draws(3, TrainingOptions(batch=8), 0, 0)
        assert len(batch) == 8
        assert {draw.index for draw in batch} == {0, 1, 2}
        assert len({draw.position for draw in batch}) == 8  # each repetition is cut anew

    def test_what_does_not_fill_a_batch_waits_for_another_epoch(self):
        assert updates_per_epoch(11, TrainingOptions(batch=4)) == 2
        assert updates_per_epoch(11, TrainingOptions(batch=4, accumulate=2)) == 1


class TestEvaluation:
    @pytest.mark.parametrize("ranks", [1, 2, 3])
    @pytest.mark.parametrize("count", [1, 2, 7, 12])
    @pytest.mark.parametrize("pipeline", [WholeImage(), CentreCrop(16)], ids=repr)
    def test_every_sample_is_seen_once_over_all_ranks(self, count, ranks, pipeline):
        parts = [evaluation_draws(count, 4, pipeline, Shard(rank, ranks)) for rank in range(ranks)]
        assert sorted(draw.index for part in parts for batch in part for draw in batch) == list(range(count))

    def test_images_of_their_own_size_come_alone(self):
        assert {len(batch) for batch in evaluation_draws(7, 4, WholeImage())} == {1}
        assert [len(batch) for batch in evaluation_draws(7, 4, CentreCrop(16))] == [4, 3]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_one_line_that_names_the_file(samples, workers):
    path = samples.dataset.image_path(samples.names[3])
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ContsegError, match=r"cannot be read as an image") as caught:
        batches(samples, epoch_draws(len(samples), TrainingOptions(batch=6), 0, 0), workers)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


class TestExemplars:
    @QUICK
    @given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 8), st.floats(0.01, 0.99), st.integers(0, 99))
    def test_a_share_of_every_batch_is_replaced_by_exemplars(self, samples, exemplars, batch, share, seed):
        options = TrainingOptions(batch=batch, seed=seed)
        batches = epoch_draws(samples, options, 1, 0, exemplars=exemplars, share=share)
        assert len(batches) == updates_per_epoch(samples, options)
        for draws in batches:
            assert sum(draw.index >= samples for draw in draws) == int(batch * share)
            assert all(draw.index < samples + exemplars for draw in draws)

    def test_all_exemplars_come_before_any_comes_again(self):
        batches = epoch_draws(40, TrainingOptions(batch=8), 1, 0, exemplars=10, share=0.5)
        seen = [draw.index for draws in batches for draw in draws if draw.index >= 40]
        assert len(set(seen[:8])) == 8
        assert sorted(seen) == sorted([*range(40, 50)] * 2)

    def test_the_other_places_hold_what_they_would_hold_without_exemplars(self):
        plain, mixed = (epoch_draws(40, TrainingOptions(batch=8), 1, 0, exemplars=n, share=0.5) for n in (0, 10))
        for one, other in zip(plain, mixed, strict=True):
            assert [a for a, b in zip(one, other, strict=True) if b.index < 40] == [b for b in other if b.index < 40]

    @pytest.mark.parametrize("count", [2, 4])
    def test_ranks_share_one_choice(self, count):
        options = TrainingOptions(batch=8)
        whole = epoch_draws(40, options, 1, 0, exemplars=10, share=0.5)
        parts = [epoch_draws(40, options, 1, 0, Shard(rank, count), 10, 0.5) for rank in range(count)]
        assert [[draw for piece in pieces for draw in piece] for pieces in zip(*parts, strict=True)] == whole


def stuck(*arguments):
    time.sleep(60)


def killed(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("pipeline", [stuck, killed], ids=lambda pipeline: pipeline.__name__)
def test_a_worker_that_ends_or_hangs_is_one_line_with_its_images(samples, monkeypatch, pipeline):
    monkeypatch.setattr("contseg.engine.workers.PATIENCE", 1.0)
    with pytest.raises(
        ContsegError, match=r"training\.workers: no batch came from the workers \(DataLoader .*\); check"
    ) as caught:
        batches(samples, [[Draw(0, 0, 3)]], workers=1, pipeline=pipeline)
    assert str(samples.dataset.image_path(samples.names[3])) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_upright_and_lying_images_do_not_mix_in_a_rectangular_crop(samples):
    draws = [[Draw(0, place, place) for place in range(2)]]

    def turning(image, layers, rng):
        pixels, layers = CUT(image, layers, rng)
        rows, columns = np.s_[8:, :] if rng.random() < 0.5 else np.s_[:, 8:]
        return pixels[:, rows, columns], cut_layers(layers, (rows, columns))

    seeds = range(20)
    told = []
    for seed in seeds:
        try:
            list(Batches(samples, turning, draws, seed=seed, step=0, device=torch.device("cpu")))
        except ContsegError as error:
            told.append(str(error))
    assert 0 < len(told) < len(seeds)
    assert all(message.startswith("data.crop: a rectangular crop") for message in told)


def test_a_picture_that_a_pipeline_refuses_is_one_line_that_names_the_file(samples, monkeypatch):
    monkeypatch.setenv("CONTSEG_MAX_PIXELS", "5000")
    with pytest.raises(ContsegError, match=r"\.png: 32x32 resized for data.test_crop=512 is 512x512, more than 5000 pixels"):
        list(Batches(samples, CentreCrop(512), [[Draw(0, 0, 0)]], seed=1, step=0, device=CPU))


def workers_alive() -> set[int]:
    return {child.pid for child in multiprocessing.active_children()}


class TestWorkersThatStay:
    """The epochs of a step are read by the same processes, and are what each epoch alone is."""

    OPTIONS = TrainingOptions(batch=4, epochs=3, workers=2)

    @pytest.fixture
    def step(self, make_folder):
        return Scenario(open_dataset("folder", make_folder(count=24)), ScenarioOptions())[0]

    def of_step(self, step, workers: int) -> StepBatches:
        options = self.OPTIONS.model_copy(update={"workers": workers})
        return StepBatches(step, CUT, options, 0.0, CPU, Shard())

    def epoch(self, step, number: int) -> list[Batch]:
        alone = self.of_step(step, 0)
        try:
            return list(alone.epoch(number))
        finally:
            alone.close()

    @pytest.mark.parametrize("workers", [0, 2])
    def test_read_all_epochs_as_if_each_were_alone(self, step, workers):
        stream, readers = self.of_step(step, workers), []
        for number in range(3):
            assert_equal(list(stream.epoch(number)), self.epoch(step, number))
            readers.append(workers_alive())
        assert readers[0] == readers[1] == readers[2]
        assert len(readers[0]) == workers
        stream.close()
        assert not workers_alive()

    @pytest.mark.parametrize("workers", [0, 2])
    def test_begin_in_the_middle_of_an_epoch_and_go_on(self, step, workers):
        stream = self.of_step(step, workers)
        assert_equal(list(stream.epoch(1, 3)), self.epoch(step, 1)[3:])
        assert_equal(list(stream.epoch(2)), self.epoch(step, 2))
        stream.close()

    @pytest.mark.parametrize("workers", [0, 2])
    def test_go_anywhere_after_an_epoch_that_was_left(self, step, workers):
        stream = self.of_step(step, workers)
        left = stream.epoch(0)
        next(left)
        assert_equal(list(stream.epoch(2)), self.epoch(step, 2))
        assert_equal(list(stream.epoch(0)), self.epoch(step, 0))
        stream.close()

    def test_read_nothing_after_the_last_epoch(self, step):
        stream = self.of_step(step, 0)
        assert list(stream.epoch(2))
        assert next(stream._stream, None) is None

    def test_serve_a_pass_within_a_pass(self, samples):
        draws = evaluation_draws(len(samples), 4, CUT)
        passes = Batches(samples, CUT, draws, seed=1, step=0, device=CPU, workers=1, stay=True)
        outer = iter(passes)
        first = next(outer)
        inner = list(passes)
        assert_equal([first, *outer], inner)
        passes.close()

    def test_are_the_same_for_all_passes_until_they_are_closed(self, samples):
        draws = evaluation_draws(len(samples), 4, CUT)
        passes = Batches(samples, CUT, draws, seed=1, step=0, device=CPU, workers=2, stay=True)
        first, before = list(passes), workers_alive()
        second, after = list(passes), workers_alive()
        assert_equal(first, second)
        assert before == after
        assert len(before) == 2
        passes.close()
        assert not workers_alive()

    def test_end_with_a_pass_that_was_left(self, samples):
        draws = evaluation_draws(len(samples), 4, CUT)
        begun = iter(Batches(samples, CUT, draws, seed=1, step=0, device=CPU, workers=2, stay=True))
        next(begun)
        assert len(workers_alive()) == 2
        begun.close()
        assert not workers_alive()

    def test_name_the_images_of_the_batch_that_does_not_come(self, samples, monkeypatch):
        """A worker that ends in the second pass."""
        monkeypatch.setattr("contseg.engine.workers.PATIENCE", 30.0)
        draws = [[Draw(0, 0, place)] for place in range(6)]
        passes = Batches(samples, ends_at_its_ninth, draws, seed=1, step=0, device=CPU, workers=1, stay=True)
        assert len(list(passes)) == 6
        with pytest.raises(ContsegError, match="no batch came from the workers") as caught:
            list(passes)
        assert str(samples.dataset.image_path(samples.names[2])) in str(caught.value)

    def test_do_not_touch_the_generator_of_the_caller(self, samples):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        batches(samples, [[Draw(0, 0, 0)]], workers=1)
        assert torch.equal(torch.get_rng_state(), before)


CALLS = itertools.count(1)


def ends_at_its_ninth(*arguments):
    if next(CALLS) == 9:
        time.sleep(0.5)  # until the batches before it are sent
        os.kill(os.getpid(), signal.SIGKILL)
    return CUT(*arguments)
