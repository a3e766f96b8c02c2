"""RCIL: two branches are merged at the start of a step, and the first one stays as it is."""

import pytest
import torch

from contseg.errors import ContsegError
from contseg.interop.imagenet import load_backbone
from contseg.interop.segmenter_file import load_segmenter
from contseg.methods.registry import make_method
from contseg.models.backbones.resnet import ResNet
from contseg.models.branches import TwoBranches, mixed
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.recipes.build import make_job
from contseg.scenarios.step import Step
from tests.engine.runs import interrupted, learn, lines, same, tiny_recipe, weights

RECIPE = tiny_recipe("rcil", "scenario.split=5-3-2")
NETWORK = NetworkOptions(
    backbone={"name": "resnet18", "width": 4, "branches": 2}, head={"name": "deeplabv3-rcil", "width": 8}
)
LATER = Step.of(["background", "cat", "dog"], old=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("whole") / "run", RECIPE)


def uneven(options=NETWORK) -> Segmenter:
    """A segmenter whose norms have statistics, in evaluation mode."""
    torch.manual_seed(0)
    segmenter = Segmenter(options, [2]).double()
    for _ in range(3):
        segmenter.train()(2 + torch.randn(4, 3, 64, 64, dtype=torch.float64))
    return segmenter.eval()


@pytest.mark.parametrize(("event", "count"), [("updated", 6), ("step_finished", 1), ("updated", 13)])
def test_it_goes_on_where_it_was_stopped(tmp_path, whole, event, count):
    interrupted(tmp_path / "run", RECIPE, event, count)
    run = learn(tmp_path / "run", RECIPE)
    assert lines(run) == lines(whole)
    assert all(same(weights(run, step), weights(whole, step)) for step in range(3))


def test_a_later_step_ends_with_the_first_branches_that_the_merge_wrote(whole):
    merged, _ = load_segmenter(whole.segmenter_path(0))
    torch.manual_seed(0)
    merged.grow(3, "random")
    make_method("rcil").prepare(merged, Step.of([*map(str, range(9))], old=6))
    last, _ = load_segmenter(whole.segmenter_path(1))
    first, second = merged.state_dict(), last.state_dict()
    frozen = {
        f"{name}.{part}"
        for name, module in merged.named_modules()
        if isinstance(module, TwoBranches)
        for part in module.first_parts
    }
    own = [name for name in first if name.startswith(tuple(f"{part}." for part in frozen))]
    assert len(own) > 20
    assert all(torch.equal(first[name], second[name]) for name in own)
    assert not torch.equal(first["head.branches_new.0.weight"], second["head.branches_new.0.weight"])


def test_a_preserving_merge_keeps_the_function_and_the_released_one_does_not():
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for init, kept in (("preserving", True), ("released", False)):
        segmenter = uneven()
        before = segmenter(images).logits
        segmenter.grow(1, "random")
        make_method("rcil", init=init).prepare(segmenter, LATER)
        assert torch.allclose(segmenter.eval()(images).logits[:, :2], before, rtol=1e-9, atol=1e-9) == kept


def test_new_classes_start_with_the_weights_of_background_and_biases_of_their_own():
    segmenter = uneven()
    bias = segmenter.classifier.steps[0].bias.clone()
    segmenter.grow(1, "random")
    own = segmenter.classifier.steps[1].bias.clone()
    make_method("rcil").prepare(segmenter, LATER)
    first, new = segmenter.classifier.steps
    assert torch.equal(new.weight[0], first.weight[0])
    assert torch.equal(first.bias, bias)
    assert torch.equal(new.bias, own)


def test_a_channel_is_one_branch_the_other_or_the_mean_and_on_average_the_mean():
    ones, zeros = torch.ones(3, 3000, 1, 2), torch.zeros(3, 3000, 1, 2)
    torch.manual_seed(0)
    drawn = mixed(ones, zeros, training=True)
    assert torch.equal(drawn, drawn[:1, :, :, :1].expand_as(drawn))
    shares = [(drawn == value).double().mean().item() for value in (1.0, 0.0, 0.5)]
    assert shares == pytest.approx([0.33, 0.33, 0.34], abs=0.03)
    assert torch.equal(mixed(ones, zeros, training=False), ones / 2)


def test_weights_of_imagenet_go_into_both_branches(tmp_path):
    torch.manual_seed(0)
    single = ResNet("resnet18", width=4)
    torch.save(single.state_dict(), tmp_path / "weights.pth")
    backbone = NETWORK.backbone.make()
    load_backbone(backbone, tmp_path / "weights.pth")
    block = backbone.layer3[1]
    assert torch.equal(block.conv2.weight, single.layer3[1].conv2.weight)
    assert torch.equal(block.conv2_new.weight, block.conv2.weight)
    assert torch.equal(block.bn2_new.running_var, block.bn2.running_var)
    assert not block.conv2.bias.any()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (NetworkOptions(), "network.head: method 'rcil' merges two branches, and resnet101 with deeplabv3-mib has one; set"),
        (NETWORK.changed(backbone={"branches": 1}), "and resnet18 with deeplabv3-rcil has one"),
    ],
)
def test_other_networks_are_refused(network, message):
    with pytest.raises(ContsegError, match=message):
        make_method("rcil").check(network, [])


def test_fusion_of_weights_is_refused(tmp_path):
    with pytest.raises(ContsegError, match=r"method\.fusion: 'rcil' merges branches at the start of a step"):
        make_job(tiny_recipe("rcil", "method.fusion=ewf"), tmp_path)
