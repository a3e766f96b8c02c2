"""Methods that learn a step without updates, from one pass over every training image."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from contseg.engine.loading import Shard
from contseg.errors import ContsegError
from contseg.losses.prototypes import class_means, class_sums, nearest
from contseg.methods.finetune import Finetune
from contseg.methods.registry import METHODS, register_method
from contseg.recipes.build import make_job
from contseg.report.page import write_report
from tests.engine.runs import command, interrupted, job_in, learn, lines, same, tiny_recipe, weights

RECIPE = ("method={name: class-means}", "training.epochs=0")


@dataclass(frozen=True)
class ClassMeans(Finetune):
    """The weights of a new class are its mean feature: the class of a pixel is that of the nearest mean."""

    name = "class-means"
    learns_without_updates = True

    @torch.no_grad()
    def after_step(self, context):
        student, step = context.student.eval(), context.step
        width = student.head.width
        sums, counts = torch.zeros(step.seen_count, width), torch.zeros(step.seen_count, dtype=torch.int64)
        for batch in context.every_sample:
            features = student(student.normalise(batch.images), taps=("head",)).features["head"]
            more = class_sums(features, nearest(batch.labels, features.shape[2:]), step.seen_count)
            sums, counts = sums + more[0], counts + more[1]
        means = class_means(context.ranks.sum(sums), context.ranks.sum(counts))[step.old_count :]
        classifier = student.classifier.steps[step.index]
        classifier.weight.copy_(means[:, :, None, None])
        classifier.bias.copy_(-means.square().sum(dim=1) / 2)


@pytest.fixture(autouse=True)
def registered():
    register_method(ClassMeans)
    yield
    METHODS.unregister("class-means")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    register_method(ClassMeans)
    try:
        return learn(tmp_path_factory.mktemp("whole") / "run", tiny_recipe("finetune", *RECIPE))
    finally:
        METHODS.unregister("class-means")


class TestARunWithoutEpochs:
    def test_learns_classes_of_every_step(self, whole):
        before = 1  # background
        for step, confusion in enumerate(whole.confusions()):
            assert np.diag(confusion)[before:].any(), f"no pixel of a new class is right after step {step}"
            before = len(confusion)
        assert lines(whole, "epoch") == []

    def test_continues_after_an_interruption(self, whole, tmp_path):
        interrupted(tmp_path / "run", tiny_recipe("finetune", *RECIPE), "step_finished", 1)
        run = learn(tmp_path / "run", tiny_recipe("finetune", *RECIPE))
        assert same(weights(run), weights(whole))
        assert lines(run) == lines(whole)

    def test_can_be_evaluated_and_reported(self, whole, tmp_path):
        code, out, errors = command("evaluate", whole.folder)
        assert (code, errors) == (0, ""), out + errors
        write_report([whole.folder], tmp_path / "report.html")
        assert "class-means" in (tmp_path / "report.html").read_text()


class TestEverySample:
    @pytest.fixture
    def passes(self, tmp_path, monkeypatch):
        """The batches of `every_sample` in step 0 on each of some ranks."""

        def collect(count):
            found = []

            @dataclass(frozen=True)
            class Collecting(ClassMeans):
                def after_step(self, context):
                    if context.step.index == 0:
                        found.append([list(context.every_sample), list(context.every_sample)])

            for rank in range(count):
                monkeypatch.setattr("contseg.engine.session.shard_of", lambda fabric, rank=rank: Shard(rank, count))
                self.job = job_in(tmp_path / str(rank), tiny_recipe("finetune", *RECIPE), method=Collecting())
                learn(self.job.folder, tiny_recipe("finetune", *RECIPE), method=Collecting())
            return found

        return collect

    @pytest.mark.parametrize("count", [1, 2])
    def test_has_each_training_image_exactly_once_over_all_ranks(self, passes, count):
        names = [name for first, _ in passes(count) for batch in first for name in batch.names]
        train = self.job.scenario[0].train
        assert len(train) % 10, "the last batch is not full"
        assert sorted(names) == sorted(train.names)

    def test_has_no_augmentation_and_the_labels_of_training(self, passes):
        ((first, second),) = passes(1)
        train = self.job.scenario[0].train
        for batch, again in zip(first, second, strict=True):
            assert torch.equal(batch.images, again.images)
            for position, name in enumerate(batch.names):
                image, layers = train.read(train.names.index(name))
                pixels, layers = self.job.evaluation_pipeline(image, layers, np.random.default_rng(0))
                assert torch.equal(batch.images[position], pixels)
                assert np.array_equal(batch.labels[position], train.labels(layers))


class TestOtherMethods:
    @pytest.mark.parametrize(("epochs", "step"), [("0", 0), ("[2, 0]", 1)])
    def test_are_refused_in_one_line(self, tmp_path, epochs, step):
        with pytest.raises(ContsegError, match=rf"^training\.epochs: 0 in step {step}, .* set at least 1, or use") as caught:
            make_job(tiny_recipe("mib", f"training.epochs={epochs}"), tmp_path / "run")
        assert "\n" not in str(caught.value)

    def test_may_have_no_epochs_in_a_step_that_is_given(self, whole, tmp_path):
        start = f"start_from={whole.segmenter_path(0)}"
        make_job(tiny_recipe("mib", start, "training.epochs=[0, 1]"), tmp_path / "run")
