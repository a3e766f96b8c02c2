"""Backbones that compute their blocks again in backward learn what others learn, and keep less meanwhile."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from contseg.engine.draws import DrawsOfUpdate
from contseg.models.options import NetworkOptions
from contseg.models.recomputation import recomputed
from contseg.models.segmenter import Segmenter
from tests.models.test_backbones import TINY, images, tiny

RESNETS = {
    "resnet18": {"name": "resnet18", "width": 8},
    "resnet50, stage 1 frozen": {"name": "resnet50", "width": 8, "freeze": "stage1"},
}


def segmenter_of(name: str) -> Segmenter:
    if name in TINY:
        return tiny(name)
    torch.manual_seed(0)
    return Segmenter(NetworkOptions(backbone=RESNETS[name], head="fcn", head_width=8), [3])


def learned(segmenter, context):
    """Gradients and statistics after a pass with random draws, and the bytes that it kept."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    segmenter = copy.deepcopy(segmenter).train()
    torch.manual_seed(3)
    with context(segmenter.backbone), saved_tensors_hooks(keep, lambda tensor: tensor):
        output = segmenter(images(), taps=("stage1", "stage3", "head"))
    state = torch.get_rng_state()
    loss = output.logits.square().mean() + sum(one.square().mean() for one in output.features.values())
    loss.backward()
    assert torch.equal(torch.get_rng_state(), state)
    gradients = {name: value.grad for name, value in segmenter.named_parameters() if value.grad is not None}
    mine = {value.untyped_storage().data_ptr() for value in segmenter.parameters()}
    bytes = sum(value.untyped_storage().nbytes() for place, value in kept.items() if place not in mine)
    return gradients, dict(segmenter.named_buffers()), bytes


def full(backbone):
    return nullcontext()


@pytest.mark.parametrize("name", [*RESNETS, *TINY])
def test_gradients_draws_and_statistics_are_the_same_and_less_is_kept(name):
    segmenter = segmenter_of(name)
    plain, lean = learned(segmenter, full), learned(segmenter, recomputed)
    assert plain[0].keys() == lean[0].keys()
    assert all(torch.equal(plain[0][key], lean[0][key]) for key in plain[0])
    assert all(torch.equal(plain[1][key], lean[1][key]) for key in plain[1])
    assert lean[2] < 0.8 * plain[2]


def test_the_draws_of_an_update_are_drawn_again():
    segmenter = tiny("swin_tiny", backbone_options=TINY["swin_tiny"] | {"drop_path": 0.5})
    plain = learned(segmenter, lambda backbone: DrawsOfUpdate(2, 1, 3))

    class Both:
        def __init__(self, backbone):
            self.draws, self.lean = DrawsOfUpdate(2, 1, 3), recomputed(backbone, lambda: DrawsOfUpdate(2, 1, 3))

        def __enter__(self):
            self.draws.__enter__()
            self.lean.__enter__()

        def __exit__(self, *error):
            self.lean.__exit__(*error)
            self.draws.__exit__(*error)

    lean, other = learned(segmenter, Both), learned(segmenter, full)
    assert all(torch.equal(plain[0][key], lean[0][key]) for key in plain[0])
    assert not all(torch.equal(plain[0][key], other[0][key]) for key in plain[0])


def test_a_network_is_as_before_when_the_pass_has_ended():
    segmenter = segmenter_of("resnet18")
    with recomputed(segmenter.backbone), pytest.raises(RuntimeError):
        segmenter(images()[:, :2])
    assert not any("forward" in vars(block) for block in segmenter.modules())
