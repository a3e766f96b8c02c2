"""A classifier whose steps each lower background by a residual of their own."""

import pytest
import torch

from contseg.errors import ContsegError
from contseg.losses.background_residual import branch_distance, merged
from contseg.models.options import NetworkOptions
from contseg.models.residual import ResidualClassifier
from contseg.models.segmenter import Segmenter

OPTIONS = NetworkOptions(
    backbone={"name": "resnet18", "width": 4, "output_stride": 8},
    head={"name": "deeplabv3-barm", "width": 8},
    background="residual",
    decision="sigmoid",
)
FEATURES = torch.randn(2, 8, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def classifier() -> ResidualClassifier:
    torch.manual_seed(0)
    return ResidualClassifier(8, [3, 2]).eval()


@pytest.mark.parametrize("start", ["branch", "random"])
def test_growing_keeps_every_old_logit_except_backgrounds_which_a_residual_only_lowers(classifier, start):
    before = classifier(FEATURES)
    classifier.grow(2, start)
    classifier.eval()
    after = classifier(FEATURES)
    assert classifier.widths == [3, 2, 2]
    assert after.shape == (2, 7, 5, 4)
    assert torch.equal(after[:, 1:5], before[:, 1:])
    assert (after[:, 0] <= before[:, 0]).all()
    assert not torch.equal(after[:, 0], before[:, 0])


def test_a_new_branch_starts_with_the_convolution_and_the_gains_of_the_first(classifier):
    with torch.no_grad():
        for value in classifier.steps[0][1].state_dict().values():
            value += 1
    classifier.grow(2, "branch")
    first, newest = classifier.steps[0].state_dict(), classifier.steps[-1].state_dict()
    assert all(torch.equal(first[name], newest[name]) for name in ("0.weight", "1.weight", "1.bias"))
    assert not newest["1.running_mean"].any()
    assert (newest["1.running_var"] == 1).all()
    assert newest["3.weight"].shape == (3, 8, 1, 1)


@pytest.mark.parametrize("start", ["background", "unknown", "auxiliary", "reserved"])
def test_other_starts_are_refused(classifier, start):
    with pytest.raises(ContsegError, match=rf"cannot start new classes from '{start}'; .* branch and random"):
        classifier.grow(1, start)


def test_steps_are_parts_of_the_logits(classifier):
    logits = classifier(FEATURES)
    assert torch.equal(classifier(FEATURES, slice(0, 1)), logits[:, :3])
    assert torch.equal(classifier(FEATURES, slice(-1, None)), logits[:, 3:])


def test_taps_are_what_the_logits_are_made_of(classifier):
    logits, found = classifier.run(FEATURES, ("branches", "raw_logits"))
    branches, raw = found["branches"].split(8, dim=1), found["raw_logits"].split(classifier.raw_widths, dim=1)
    again = [step[3](branch) for step, branch in zip(classifier.steps, branches, strict=True)]
    assert all(torch.equal(one, other) for one, other in zip(raw, again, strict=True))
    assert torch.equal(logits, merged(raw))
    assert classifier.run(FEATURES, ())[1] == {}


class TestMerged:
    RAW = (torch.tensor([1.0, 2.0]), torch.tensor([-3.0, 4.0]), torch.tensor([5.0, 6.0]))

    def raw(self) -> list[torch.Tensor]:
        return [values.view(1, 2, 1, 1).clone().requires_grad_() for values in self.RAW]

    def test_residuals_only_lower_background_in_evaluation(self):
        assert merged(self.raw()).flatten().tolist() == [-2.0, 2.0, 4.0, 6.0]

    def test_in_training_the_newest_residual_is_not_clamped_and_alone_has_a_gradient(self):
        raw = self.raw()
        logits = merged(raw, training=True)
        assert logits.flatten().tolist() == [3.0, 2.0, 4.0, 6.0]
        logits[:, 0].sum().backward()
        assert [one.grad.flatten().tolist() for one in raw] == [[0, 0], [0, 0], [1, 0]]

    def test_the_first_step_has_background_itself(self):
        raw = self.raw()[:1]
        for training in (False, True):
            merged(raw, training)[:, 0].sum().backward()
        assert raw[0].grad[0, 0].item() == 2


def test_the_distance_of_branches_is_the_sum_of_their_means():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 2, 6, 3, 4, generator=generator)
    where = torch.rand(2, 3, 4, generator=generator) > 0.5
    expected = sum(
        ((a - b).square() * where[:, None]).mean() for a, b in zip(one.split(3, 1), other.split(3, 1), strict=True)
    )
    torch.testing.assert_close(branch_distance(one, other, where, 2), expected)


class TestANetwork:
    def test_starts_from_its_file_with_all_branches(self):
        segmenter = Segmenter(OPTIONS, [3, 1]).eval()
        again = Segmenter(OPTIONS, segmenter.widths).eval()
        again.load_state_dict(segmenter.state_dict())
        images = torch.randn(1, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(again(images).logits, segmenter(images).logits)

    def test_has_its_taps(self):
        segmenter = Segmenter(OPTIONS, [3, 1])
        assert {"branches", "raw_logits"} <= {*segmenter.taps}
        output = segmenter(torch.randn(2, 3, 32, 32), taps=("raw_logits",))
        assert output.features["raw_logits"].shape[1] == 5
        with pytest.raises(ContsegError, match="tap 'branches': resnet18 with fcn has"):
            Segmenter(NetworkOptions(backbone="resnet18", head="fcn"), [3])(torch.zeros(1, 3, 32, 32), taps=("branches",))

    @pytest.mark.parametrize("part", [{"auxiliary": {}}, {"unknown": True}, {"head": {"name": "fcn", "idrnet": {}}}])
    def test_parts_that_need_one_classifier_for_background_are_refused(self, part):
        with pytest.raises(ValueError, match=r"residual has no single classifier for background, which .* needs"):
            OPTIONS.changed(**part)
