"""Checkpoints of EoMT: every published size by its names, whole files, and files of differences to a backbone."""

import re

import pytest
import torch

from contseg.data.classes import ClassTable
from contseg.errors import ContsegError
from contseg.interop.convert import convert_file, recognise
from contseg.interop.eomt import eomt_names, eomt_options
from contseg.interop.pretrained import save_pretrained
from contseg.models.make import make_segmenter
from contseg.models.options import NetworkOptions
from tests.engine.runs import command
from tests.parity.check_eomt import published_trunk

DEPTHS = {"small": 12, "base": 12, "large": 24}


def published_names(state, rotary) -> dict[str, torch.Tensor]:
    """The tensors of one of our networks, under the names of a checkpoint."""
    found = {}
    for name, value in state.items():
        if name == "head._extra_state":
            found["attn_mask_probs"] = value.float()
        elif name.startswith("head."):
            found[name.removeprefix("head.")] = value
        elif name.startswith("backbone.model."):
            name = f"encoder.backbone.{name.removeprefix('backbone.model.')}"
            found |= dict(published_trunk(name, value, {"family": "dinov3" if rotary else "dinov2"}))
    for last in ("weight", "bias"):
        found[f"class_head.{last}"] = torch.cat([state[f"classifier.{one}.{last}"] for one in ("steps.0", "none")])
    return found


@pytest.mark.parametrize("size", DEPTHS)
@pytest.mark.parametrize("family", ["dinov2_reg", "dinov3"])
def test_every_published_size_is_inferred_and_its_names_fit_one_to_one(family, size):
    rotary = family == "dinov3"
    more = {"options": {"qkv_bias": True}} if rotary else {"patch": 16, "size": 512}
    options = NetworkOptions(backbone={"name": f"{family}_{size}", **more}, head={"name": "eomt", "queries": 200})
    with torch.device("meta"):
        state = make_segmenter(options, [150]).state_dict()
    assert sum(name.endswith("norm1.weight") for name in state) == DEPTHS[size]
    theirs = published_names(state, rotary)
    assert recognise(theirs) == "eomt"
    found = eomt_options(theirs)
    assert found.backbone.model_dump() | {"size": None} == options.backbone.model_dump() | {"size": None}
    assert found.backbone.sides == options.backbone.sides
    assert found.head == options.head
    ours = eomt_names(theirs)
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in state.items()}


def trained(rotary, seed=0):
    """A tiny network with its published names, of the width of a head that is inferred."""
    torch.manual_seed(seed)
    name, more = ("dinov3_small", {"qkv_bias": True}) if rotary else ("dinov2_reg_small", {})
    backbone = {"name": name, "patch": 16, "options": {"embed_dim": 64, "depth": 2, "num_heads": 1, **more}}
    if not rotary:
        backbone["size"] = 64
    segmenter = make_segmenter(
        NetworkOptions(backbone=backbone, head={"name": "eomt", "queries": 5, "blocks": 1}), [4]
    ).eval()
    for one in segmenter.parameters():
        torch.nn.init.normal_(one, std=0.2)
    segmenter.head.probabilities = [0.0]
    return segmenter, published_names(segmenter.state_dict(), rotary)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("encoder.backbone.pos_embed", lambda value: value.flatten(), r"pos_embed has the shape \(1024,\), which no"),
        ("encoder.backbone.patch_embed.proj.weight", lambda value: value[0, 0, 0], r"proj\.weight has the shape \(16,\)"),
        ("q.weight", lambda value: value[0, 0], r"q\.weight has the shape \(\)"),
        (None, None, r"no encoder\.backbone\.blocks\.0"),
    ],
)
def test_tensors_of_other_shapes_are_named(name, change, message):
    _, tensors = trained(False)
    if name is None:
        tensors = {key: value for key, value in tensors.items() if ".blocks." not in key}
    else:
        tensors[name] = change(tensors[name])
    with pytest.raises(ContsegError, match=message):
        eomt_options(tensors)


@pytest.mark.parametrize("rotary", [False, True])
def test_a_file_of_the_trainer_gives_the_same_masks(tmp_path, rotary):
    segmenter, tensors = trained(rotary)
    file = {f"network.{name}": value for name, value in tensors.items()} | {"criterion.empty_weight": torch.ones(5)}
    file["network.encoder.pixel_mean"] = torch.tensor([0.5, 0.5, 0.5]).view(1, 3, 1, 1)
    torch.save({"state_dict": file}, tmp_path / "file.ckpt")
    found, source = convert_file(tmp_path / "file.ckpt")
    assert source == "eomt"
    assert found.options.mean == (0.5, 0.5, 0.5)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for mine, theirs in zip(found(images).masks[:2], segmenter(images).masks[:2], strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("rotary", [False, True])
def test_differences_are_added_to_the_backbone(tmp_path, rotary):
    segmenter, tensors = trained(rotary)
    base = trained(rotary, seed=1)[0].backbone.model.state_dict()
    base = {name: value for name, value in base.items() if "attn.q_bias" not in name}  # as published
    torch.save(base, tmp_path / "base.pth")
    inner = {f"encoder.backbone.{name}": value for name, value in base.items()}
    of_base = {}
    for name, value in inner.items():
        of_base |= dict(published_trunk(name, value, {"family": "dinov3" if rotary else "dinov2"}))
    torch.save({name: value - of_base.get(name, 0) for name, value in tensors.items()}, tmp_path / "file.pth")
    found, _ = convert_file(tmp_path / "file.pth", "eomt", tmp_path / "base.pth")
    for name, value in segmenter.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_the_command_writes_a_segmenter_that_predicts(tmp_path):
    _, tensors = trained(rotary=False)
    torch.save(tensors, tmp_path / "file.pth")
    (tmp_path / "names.txt").write_text("sky\ntree\nroad\ncar\n")
    words = ["convert", tmp_path / "file.pth", "--classes", tmp_path / "names.txt", "--out", tmp_path / "out"]
    code, said, errors = command(*words, "--from", "eomt")
    assert (code, errors) == (0, "")
    assert "dinov2_reg_small, eomt" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.backbone.pos_embed": torch.zeros(1, 24, 64)}, "24 patches are not those of a square"),
        ({"encoder.backbone.pos_embed": None}, r"no encoder\.backbone\.pos_embed"),
        ({"attn_mask_probs": None}, "no attn_mask_probs"),
        ({"q.weight": torch.zeros(5, 32)}, r"head\.q\.weight is \(5, 32\) instead of \(5, 64\)"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(tmp_path, change, message):
    _, tensors = trained(rotary=False)
    torch.save({name: value for name, value in (tensors | change).items() if value is not None}, tmp_path / "file.pth")
    with pytest.raises(ContsegError, match=message) as caught:
        convert_file(tmp_path / "file.pth")
    assert "\n" not in str(caught.value)


def test_a_base_is_refused_where_there_are_no_differences(tmp_path):
    torch.save({"body.mod1.conv1.weight": torch.zeros(1)}, tmp_path / "file.pth")
    with pytest.raises(ContsegError, match=re.escape("--base: files of mib hold whole weights")):
        convert_file(tmp_path / "file.pth", "mib", "hub")


@pytest.mark.slow
@pytest.mark.parametrize("rotary", [False, True])
def test_it_is_exported_for_images_of_one_size(tmp_path, rotary):
    pytest.importorskip("onnxruntime")
    segmenter, _ = trained(rotary)
    folder = save_pretrained(tmp_path / "model", segmenter, ClassTable.of(["sky", "tree", "road", "car"], "none"))
    code, said, errors = command("export", folder, "--out", tmp_path / "model.onnx", "--tile", "64")
    assert (code, errors) == (0, "")
    assert "checked: differs from PyTorch by at most" in said
