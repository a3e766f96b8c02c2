"""Dropout and stochastic depth follow the samples of an update, however these are spread over ranks and passes."""

from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from contseg.engine.draws import DrawsOfUpdate
from contseg.methods.finetune import Finetune
from contseg.models.backbones.timm_backbone import import_timm
from contseg.models.layers import DropPath
from tests.engine.runs import distance, learn, tiny_recipe


class StochasticDepth(nn.Module):
    """As in torchvision."""

    def forward(self, images):
        noise = torch.empty([len(images)] + [1] * (images.ndim - 1))
        return images * noise.bernoulli_(0.5).div_(0.5)


LAYERS = {
    "elements": nn.Dropout(0.5),
    "channels": nn.Dropout2d(0.5),
    "in place": nn.Dropout(0.5, inplace=True),
    "self-normalising": nn.AlphaDropout(0.5),
    "depth": DropPath(0.5),
    "depth of timm": import_timm().layers.DropPath(0.5),
    "depth of torchvision": StochasticDepth(),
    "one after another": nn.Sequential(nn.Dropout2d(0.3), DropPath(0.5), nn.Dropout(0.2)),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_draw_what_the_whole_draws(layer, parts):
    images = torch.rand(8, 3, 5, 5, generator=torch.Generator().manual_seed(1)) + 1
    torch.manual_seed(0)
    whole = layer(images.clone())
    found = []
    for part, rows in enumerate(images.clone().chunk(parts)):
        torch.manual_seed(0)
        with DrawsOfUpdate(len(rows), part, parts):
            found.append(layer(rows))
    assert torch.equal(torch.cat(found), whole)
    assert not torch.equal(whole, images)


def test_windows_of_images_are_rows_too():
    windows = torch.ones(8 * 9, 4)
    torch.manual_seed(0)
    whole = nn.functional.dropout(windows)
    torch.manual_seed(0)
    with DrawsOfUpdate(4, 1, 2):
        assert torch.equal(nn.functional.dropout(windows[36:]), whole[36:])


def test_gradients_pass_the_mask():
    rows = torch.ones(2, 6, requires_grad=True)
    with DrawsOfUpdate(2, 1, 2):
        dropped = nn.functional.dropout(rows)
    dropped.sum().backward()
    assert torch.equal(rows.grad, dropped.detach())


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(3),
        lambda: torch.rand(4, generator=torch.Generator().manual_seed(2)),
        lambda: nn.functional.dropout(torch.ones(4), training=False),
        lambda: torch.empty(4).bernoulli_(torch.full((4,), 0.5)),
        lambda: torch.rand([]),
    ],
    ids=["another number", "a generator of its own", "evaluation", "probabilities", "a scalar"],
)
def test_other_draws_are_those_of_one_process(draw):
    torch.manual_seed(0)
    alone = draw()
    torch.manual_seed(0)
    with DrawsOfUpdate(2, 1, 2):
        assert torch.equal(draw(), alone)


@dataclass(frozen=True)
class FixedNorms(Finetune):
    """In float64, with norms whose statistics do not depend on the other images of a pass."""

    def prepare(self, segmenter, step):
        segmenter.freeze(norms=True)
        segmenter.double()


NETWORKS = {
    "dropout of channels": ("network.head=fcn", "network.head.dropout=0.5"),
    "stochastic depth": (
        "network={backbone: {name: swin_tiny, embed_dim: 8, heads: [1, 1, 2, 2], depths: [1, 1, 2, 1], window: 4,"
        " drop_path: 0.5}, head: {name: fcn, width: 16}}",
    ),
    "stochastic depth of class tokens": (
        "network={backbone: {name: vit_tiny, embed_dim: 8, depth: 4, heads: 2, grid: 2, drop_path: 0.5},"
        " head: {name: mask-transformer, width: 16, drop_path: 0.5}}",
    ),
}
WAYS = {
    "2 x 4": ("training.batch=8", "training.devices=2"),
    "1 x 4, accumulated": ("training.batch=4", "training.accumulate=2"),
    "2 x 2, accumulated": ("training.batch=4", "training.accumulate=2", "training.devices=2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_ranks_and_passes_train_like_one_process(tmp_path, network):
    options = ("training.epochs=1", "training.lr=0.01", "training.lr_later=0.003", *network)
    one = learn(tmp_path / "one", tiny_recipe("finetune", *options, "training.batch=8"), method=FixedNorms())
    expected = load_file(one.segmenter_path(1))
    for way, how in WAYS.items():
        run = learn(tmp_path / way, tiny_recipe("finetune", *options, *how), method=FixedNorms())
        assert distance(load_file(run.segmenter_path(1)), expected) < 1e-9, way
