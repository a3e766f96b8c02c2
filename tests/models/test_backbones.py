"""Every backbone under every head: shapes, growth, gradients, files; and what is frozen does not move."""

import copy
import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from contseg.errors import ContsegError
from contseg.models.backbones import timm_backbone
from contseg.models.freezing import is_norm
from contseg.models.names import ARCHITECTURES, VITS
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

TINY = {
    "swin_tiny": {"embed_dim": 8, "depths": [1, 2, 1, 1], "heads": [1, 2, 2, 4], "window": 4},
    "convnext_tiny": {"depths": [1, 1, 1, 1], "dims": [8, 12, 16, 24]},
    "mobilenetv3_large": {},
    "efficientnet_lite0": {},
    "dinov2_small": {"embed_dim": 16, "depth": 4, "num_heads": 2},
    "dinov2_reg_small": {"embed_dim": 16, "depth": 4, "num_heads": 2},
    "dinov3_small": {"embed_dim": 16, "depth": 4, "num_heads": 2},
}
HEADS = {
    "fcn": {"head": "fcn"},
    "pspnet": {"head": "pspnet"},
    "deeplabv3": {"head": "deeplabv3", "dilations": (1, 2), "auxiliary": True, "auxiliary_width": 8},
    "upernet": {"head": "upernet", "fpn_width": 8},
    "hypercolumn": {"head": "hypercolumn"},
    "deeplabv3-mib": {"head": "deeplabv3-mib"},
    "idrnet-fcn": {"head": "fcn", "idrnet": {"attention_width": 8}},
    "idrnet-upernet": {"head": "upernet", "fpn_width": 8, "idrnet": {"attention_width": 8, "context": "ppm"}},
}
SIZE = (64, 80)


def tiny(backbone: str, head: str = "fcn", **options) -> Segmenter:
    torch.manual_seed(0)
    given = {"backbone": backbone, "backbone_options": TINY.get(backbone, {}), "head_width": 8}
    return Segmenter(NetworkOptions(**given | HEADS[head] | options), [3])


def images(size=SIZE) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", TINY)
def test_any_backbone_carries_any_head(backbone, head):
    segmenter = tiny(backbone, head)
    output = segmenter(images(), taps=("stage1", "stage2", "stage3", "stage4"))
    assert [tuple(output.features[f"stage{n}"].shape[2:]) for n in (1, 2, 3, 4)] == [(16, 20), (8, 10), (4, 5), (2, 3)]
    assert [output.features[f"stage{n}"].shape[1] for n in (1, 2, 3, 4)] == segmenter.backbone.channels
    assert output.logits.shape == (
        2,
        3,
        *({"upernet": (16, 20), "hypercolumn": (8, 10)}.get(head.removeprefix("idrnet-"), (2, 3))),
    )
    loss = output.logits.square().sum() + sum(extra.logits.square().sum() for extra in output.auxiliary)
    loss.backward()
    silent = [name for name, p in segmenter.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent

    segmenter.eval()
    before = segmenter(images()).logits
    segmenter.grow(1, "random")
    assert torch.equal(segmenter(images()).logits[:, :3], before)

    again = Segmenter(segmenter.options, segmenter.widths)
    again.load_state_dict(segmenter.state_dict())
    assert torch.equal(again.eval()(images()).logits, segmenter(images()).logits)


@pytest.mark.parametrize("size", [(64, 96), (65, 81), (33, 47), (30, 20)])
@pytest.mark.parametrize("backbone", TINY)
def test_maps_round_up_at_any_size(backbone, size):
    with torch.no_grad():
        maps = tiny(backbone).eval().backbone(images(size))
    assert [tuple(x.shape[2:]) for x in maps] == [tuple(-(-side // s) for side in size) for s in (4, 8, 16, 32)]


@pytest.mark.parametrize("backbone", ["resnet18", *TINY])
@pytest.mark.parametrize("freeze", ["none", "norm", "stage1", "stage3", "stage4", "all"])
def test_what_is_frozen_does_not_learn(backbone, freeze):
    segmenter = tiny(backbone, "upernet", freeze=freeze)
    frozen = {name for name, p in segmenter.backbone.named_parameters() if not p.requires_grad}
    copied = copy.deepcopy(segmenter).requires_grad_(True).train()  # what is done between two steps
    assert {name for name, p in copied.backbone.named_parameters() if not p.requires_grad} == frozen
    names = {name for name, _ in segmenter.backbone.named_parameters()}
    norms = {
        f"{name}.{own}"
        for name, module in segmenter.backbone.named_modules()
        if is_norm(module)
        for own, _ in module.named_parameters(recurse=False)
    }
    if freeze == "none":
        assert not frozen
    elif freeze == "norm":
        assert frozen == norms != set()
    elif freeze == "all":
        assert frozen == {name for name in names if not name.startswith("pyramid.")}
    else:
        assert set() < frozen < names or backbone not in ("swin_tiny", *VITS)
    assert all(p.requires_grad for p in segmenter.head.parameters())

    before = {name: value.clone() for name, value in segmenter.backbone.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in segmenter.parameters() if p.requires_grad], lr=0.1)
    segmenter(images()).logits.square().mean().backward()
    optimiser.step()
    after = segmenter.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    statistics = [name for name in after if name.endswith("running_mean")]
    kept = {name for name in statistics if torch.equal(before[name], after[name])}
    assert kept == {name for name in statistics if name.replace("running_mean", "weight") in frozen}
    if freeze != "none":
        assert any(p.requires_grad for p in segmenter.parameters())


@pytest.mark.parametrize("freeze", ["norm", "all"])
def test_frozen_norms_stay_in_evaluation_mode(freeze):
    segmenter = tiny("mobilenetv3_large", freeze=freeze).eval().train()
    norms = [module for module in segmenter.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert segmenter.head.training


def test_stages_are_frozen_one_after_the_other():
    for backbone in ("resnet18", *TINY):
        counts = []
        for freeze in ("none", "stage1", "stage2", "stage3", "stage4"):
            made = tiny(backbone, "upernet", freeze=freeze).backbone
            counts.append(sum(p.numel() for p in made.parameters() if not p.requires_grad))
        assert counts == sorted(set(counts)), backbone


def test_layers_of_unseen_maps_are_frozen_until_a_head_reads_them():
    swin = tiny("swin_tiny", "fcn").backbone
    assert [swin.get_submodule(f"norm{n}").weight.requires_grad for n in range(4)] == [False, False, False, True]
    swin = tiny("swin_tiny", "upernet").backbone
    assert all(p.requires_grad for p in swin.parameters())


def test_drop_path_acts_in_training_only():
    for backbone in ("swin_tiny", "convnext_tiny", "dinov2_small", "dinov3_small"):
        made = tiny(backbone, drop_path=0.9).backbone
        plain = tiny(backbone).backbone
        plain.load_state_dict(made.state_dict())
        assert not torch.equal(made(images())[3], plain(images())[3]), backbone
        assert torch.equal(made.eval()(images())[3], plain.eval()(images())[3]), backbone


def test_unknown_names_and_options_are_told():
    with pytest.raises(ValidationError, match="did you mean 'swin_tiny'"):
        NetworkOptions(backbone="swin_tinny")
    with pytest.raises(ValidationError, match=r"swin_tiny has no key 'windows' .*did you mean 'window'"):
        NetworkOptions(backbone={"name": "swin_tiny", "windows": 3})
    with pytest.raises(ValidationError, match="resnet18 has no key 'embed_dim'"):
        NetworkOptions(backbone={"name": "resnet18", "embed_dim": 3})
    with pytest.raises(ContsegError, match=r"^network\.backbone\.options: convnext_tiny cannot be made of its options"):
        NetworkOptions(backbone={"name": "convnext_tiny", "options": {"windows": 3}}).backbone.make()


def test_without_timm_one_line_says_what_to_install(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'timm'", name="timm")

    monkeypatch.setattr(timm_backbone.importlib, "import_module", missing)
    with pytest.raises(ContsegError, match=r"pip install 'contseg\[timm\]'"):
        NetworkOptions(backbone="convnext_tiny").backbone.make()
    NetworkOptions(backbone="swin_tiny", backbone_options=TINY["swin_tiny"]).backbone.make()


def test_every_name_is_known_to_the_installed_timm():
    timm = timm_backbone.import_timm()
    names = [*(name for name, _, _ in ARCHITECTURES.values()), *VITS.values()]
    assert [name for name in names if not timm.is_model(name)] == []


@pytest.mark.parametrize("name", ["convnext_tiny", "mobilenetv3_large"])
def test_maps_are_those_of_timm(name):
    backbone = tiny(name).backbone
    theirs = timm_backbone.import_timm().create_model(
        backbone.timm_name, pretrained=False, num_classes=0, features_only=True, out_indices=backbone.indices, **TINY[name]
    )
    names = {key.replace(".", "").replace("_", ""): key for key in theirs.state_dict()}  # theirs flattens some names
    state = {names[key.replace(".", "").replace("_", "")]: value for key, value in backbone.model.state_dict().items()}
    theirs.load_state_dict(state)
    for mode in (True, False):  # running statistics too
        backbone.train(mode), theirs.train(mode)
        for ours, expected in zip(backbone(images((64, 96))), theirs(images((64, 96))), strict=True):
            torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("backbone", TINY)
def test_half_precision_is_near_full(backbone):
    made = tiny(backbone).backbone.eval()
    with torch.no_grad():
        full = made(images())[3]
        with torch.autocast("cpu", torch.bfloat16):
            half = made(images())[3].float()
    assert (full - half).norm() < 0.05 * full.norm()


def test_swin_shifts_a_single_window_and_attends_to_the_padding():
    """A 3 x 3 map in a window of 4: moving the shift, or hiding the padding, would change the answer."""
    attention = tiny("swin_tiny").backbone.layers[1].blocks[1].attn
    assert (attention.window, attention.shift) == (4, 2)
    x = torch.randn(1, 3, 3, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        shifted = attention(x)
        padded = attention(torch.nn.functional.pad(x, (0, 0, 0, 1, 0, 1)))[:, :3, :3]
        attention.shift = 0
        plain = attention(x)
    torch.testing.assert_close(shifted, padded)
    assert not torch.allclose(shifted, plain)


def test_the_command_line_does_not_import_timm():
    code = "import sys, contseg.cli.main, contseg.models.segmenter; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_maps_of_timm_end_at_the_output_stride(stride):
    segmenter = tiny("efficientnet_lite0", backbone_options={"output_stride": stride}).eval()
    maps = segmenter.backbone(images((65, 81)))
    assert [tuple(x.shape[2:]) for x in maps] == [
        tuple(-(-side // min(s, stride)) for side in (65, 81)) for s in (4, 8, 16, 32)
    ]
    assert segmenter.options.backbone.stride == segmenter.backbone.output_stride == stride
