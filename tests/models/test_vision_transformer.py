"""A vision transformer at one resolution, under every kind of head, and with the weights of timm."""

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from contseg.errors import ContsegError
from contseg.interop import imagenet
from contseg.interop.imagenet import load_backbone
from contseg.models.backbones.timm_backbone import import_timm
from contseg.models.backbones.vision_transformer import VisionTransformer, resized_positions
from contseg.models.names import TRANSFORMERS
from contseg.models.options import NetworkOptions
from contseg.models.recomputation import recomputed
from contseg.models.segmenter import Segmenter

SIZES = {"embed_dim": 16, "depth": 4, "heads": 2, "grid": 4}
HEADS = {
    "fcn": {"name": "fcn", "width": 8},
    "pspnet": {"name": "pspnet", "width": 8},
    "upernet": {"name": "upernet", "width": 8, "fpn_width": 8},
    "hypercolumn": {"name": "hypercolumn", "width": 8},
    "deeplabv3-mib": {"name": "deeplabv3-mib", "width": 8},
    "mask-transformer": {"name": "mask-transformer", "width": 8, "heads": 2},
}


def made(seed=0, **changes) -> VisionTransformer:
    torch.manual_seed(seed)
    vit = VisionTransformer(**SIZES | changes)
    vit.initialise()
    return vit.eval()


def images(size=(64, 80)):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("head", HEADS)
def test_it_carries_any_head_and_every_parameter_learns(head):
    torch.manual_seed(0)
    options = NetworkOptions(backbone={"name": "vit_tiny"} | SIZES, head=HEADS[head], auxiliary={"width": 5})
    segmenter = Segmenter(options, [3])
    output = segmenter(images(), taps=("stage1", "stage2", "stage3", "stage4", "pyramid"))
    assert [tuple(output.features[f"stage{n}"].shape) for n in (1, 2, 3, 4)] == [(2, 16, 4, 5)] * 4
    assert output.logits.shape == (2, 3, 4, 5)
    (output.logits.square().sum() + output.auxiliary[0].logits.square().sum()).backward()
    assert not [
        name for name, parameter in segmenter.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]


@pytest.mark.parametrize("size", [(64, 96), (65, 81), (33, 47), (7, 20)])
def test_maps_cover_the_padded_image_at_any_size(size):
    with torch.no_grad():
        maps = made()(images(size))
    grid = tuple(-(-side // 16) for side in size)
    assert [tuple(one.shape[2:]) for one in maps] == [grid] * 4
    assert made().covered(size) == tuple(16 * side for side in grid)


def test_maps_are_those_after_each_quarter_of_the_blocks():
    vit = made(depth=8)
    seen = []
    for block in vit.blocks:
        block.register_forward_hook(lambda module, given, result: seen.append(result))
    with torch.no_grad():
        maps = vit(images())
        expected = [*(seen[place] for place in (1, 3, 5)), vit.norm(seen[7])]
    for one, tokens in zip(maps, expected, strict=True):
        assert torch.equal(one.flatten(2).transpose(1, 2), tokens[:, 1:])


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_few_blocks_are_divided_too(depth):
    vit = made(depth=depth)
    assert len(vit.stages()[0]) >= 2, "the embedding and a block"
    inside = [module for stage in vit.stages() for part in stage for module in part.modules()]
    assert len(inside) == len({id(module) for module in inside})
    assert {id(block) for block in vit.blocks} <= {id(module) for module in inside}
    assert len(vit(images())) == 4


@pytest.mark.parametrize("freeze", ["norm", "stage1", "stage2", "stage3", "stage4", "all"])
def test_what_is_frozen_does_not_learn(freeze):
    options = NetworkOptions(backbone={"name": "vit_tiny", "freeze": freeze} | SIZES, head=HEADS["mask-transformer"])
    segmenter = Segmenter(options, [3])
    frozen = {name for name, parameter in segmenter.backbone.named_parameters() if not parameter.requires_grad}
    every = {name for name, _ in segmenter.backbone.named_parameters()}
    count = {"norm": None, "stage1": 1, "stage2": 2, "stage3": 3, "stage4": 4, "all": 4}[freeze]
    if count is None:
        assert frozen == {name for name in every if "norm" in name}
    elif count == 4:
        assert frozen == every
    else:
        blocks = {int(name.split(".")[1]) for name in frozen if name.startswith("blocks.")}
        assert blocks == set(range(count))
        assert {"pos_embed", "cls_token", "patch_embed.proj.weight"} <= frozen
    before = copy.deepcopy(segmenter.backbone.state_dict())
    optimiser = torch.optim.SGD([p for p in segmenter.parameters() if p.requires_grad], lr=0.1)
    segmenter(images()).logits.square().mean().backward()
    optimiser.step()
    assert all(torch.equal(segmenter.backbone.state_dict()[name], before[name]) for name in frozen)


def test_drop_path_acts_in_training_only():
    dropping, plain = made(drop_path=0.9), made()
    dropping.load_state_dict(plain.state_dict())
    assert torch.equal(dropping(images())[3], plain(images())[3])
    assert not torch.equal(dropping.train()(images())[3], plain(images())[3])


def test_lean_training_has_the_same_gradients():
    found = []
    for lean in (False, True):
        vit = made(drop_path=0.5).train()
        torch.manual_seed(2)
        if lean:
            with recomputed(vit):
                maps = vit(images())
        else:
            maps = vit(images())
        sum(one.square().mean() for one in maps).backward()
        found.append([parameter.grad for parameter in vit.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


class TestWeightsOfTimm:
    @pytest.fixture
    def theirs(self):
        torch.manual_seed(3)
        given = {"embed_dim": 16, "depth": 4, "num_heads": 2, "img_size": 64, "num_classes": 5}
        model = import_timm().create_model("vit_tiny_patch16_384", pretrained=False, **given)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-5  # as MBS uses them
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.2)
        return model.eval()

    def written(self, folder, tensors):
        save_file({key: value.detach().contiguous().clone() for key, value in tensors.items()}, folder / "model.safetensors")
        return folder

    def test_give_what_timm_computes(self, theirs, tmp_path):
        vit = made()
        load_backbone(vit, self.written(tmp_path, theirs.state_dict()))
        image = images((64, 64))
        with torch.no_grad():
            tokens = theirs.forward_features(image)
            torch.testing.assert_close(vit(image)[3].flatten(2).transpose(1, 2), tokens[:, 1:], rtol=1e-4, atol=1e-4)

    def test_have_their_positions_resized(self, theirs, tmp_path):
        vit = made(grid=6)
        load_backbone(vit, self.written(tmp_path, theirs.state_dict()))
        assert torch.equal(vit.pos_embed, resized_positions(theirs.pos_embed, (6, 6)))
        assert torch.equal(vit.blocks[3].mlp.fc2.weight, theirs.blocks[3].mlp.fc2.weight)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda state: state.pop("pos_embed"), "misses pos_embed"),
            (lambda state: state.update(more=torch.ones(1)), "has unexpected more"),
            (lambda state: state.update(pos_embed=torch.ones(1, 12, 16)), "has other shapes for pos_embed"),
            (lambda state: state.update(cls_token=torch.ones(1, 1, 3)), "has other shapes for cls_token"),
        ],
    )
    def test_that_do_not_fit_are_told(self, theirs, tmp_path, change, message):
        state = dict(theirs.state_dict())
        change(state)
        with pytest.raises(ContsegError, match=message) as caught:
            load_backbone(made(), self.written(tmp_path, state))
        assert "\n" not in str(caught.value)

    def test_are_downloaded_under_timms_names(self, monkeypatch):
        asked = []

        class Timm:
            @staticmethod
            def create_model(name, pretrained):
                asked.append((name, pretrained))
                return VisionTransformer(**TRANSFORMERS["vit_tiny"], grid=24)

        monkeypatch.setattr(imagenet, "import_timm", lambda: Timm)
        load_backbone(VisionTransformer(**TRANSFORMERS["vit_tiny"]), imagenet.Path("hub"))
        assert asked == [("vit_tiny_patch16_384", True)]
        with pytest.raises(ContsegError, match="the hub has no ViT of this width and depth; give a file"):
            load_backbone(made(), imagenet.Path("hub"))


def test_positions_of_the_own_grid_are_kept_as_they_are():
    positions = torch.randn(1, 17, 3)
    assert torch.equal(resized_positions(positions, (4, 4)), positions)
