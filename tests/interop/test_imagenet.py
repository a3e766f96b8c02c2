"""ImageNet weights under the names of torchvision and of in-place ABN; what does not fit is named, nothing is executed."""

import re

import pytest
import torch
from safetensors.torch import save_file

from contseg.errors import ContsegError
from contseg.interop.checkpoint import read_tensors
from contseg.interop.imagenet import load_backbone
from contseg.interop.published import INPLACE_EPSILON
from contseg.models.backbones.resnet import ResNet

BACKBONES = ("resnet18", "resnet101")


def backbone(name="resnet18", seed=0) -> ResNet:
    torch.manual_seed(seed)
    made = ResNet(name, width=4)
    with torch.no_grad():
        for parameter_name, value in made.state_dict().items():
            if value.ndim == 1:
                value.copy_(torch.rand_like(value) + 0.5)
            assert parameter_name
    return made.eval()


def torchvision_state(made: ResNet) -> dict[str, torch.Tensor]:
    """Their names are ours, and there is a classification layer."""
    return {name: value.clone() for name, value in made.state_dict().items()} | {
        "fc.weight": torch.zeros(1000, 32),
        "fc.bias": torch.zeros(1000),
    }


def inplace_state(made: ResNet) -> dict[str, torch.Tensor]:
    """`mod1..mod5` with `convs`, `proj_conv`, norms of either sign, no count of batches."""
    state = {"classifier.fc.weight": torch.zeros(1000, 32)}
    for number, (name, value) in enumerate(made.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue
        name = re.sub(r"^layer(\d)\.(\d+)\.", lambda m: f"mod{int(m[1]) + 1}.block{int(m[2]) + 1}.", name)
        name = name if name.startswith("mod") else f"mod1.{name}"
        name = re.sub(r"(block\d+)\.(conv|bn)(\d)", r"\1.convs.\2\3", name)
        name = name.replace("downsample.0.", "proj_conv.").replace("downsample.1.", "proj_bn.")
        is_gain = value.ndim == 1 and name.endswith(".weight")
        state[name] = (value - INPLACE_EPSILON) * (-1) ** number if is_gain else value.clone()
    return state


STATES = {"torchvision": torchvision_state, "in-place ABN": inplace_state}
WRAPPINGS = {
    "plain": lambda state: state,
    "state_dict of a module": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    "model_state": lambda state: {"epoch": 3, "model_state": state},
}
PREFIXES = (
    "_orig_mod.", "module.", "model.", "backbone.", "encoder.", "model.backbone.", "module.encoder.", "_orig_mod.module.",
    "module._orig_mod.backbone.", "model.encoder._orig_mod.", "net.body.",
)  # fmt: skip


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("source", STATES)
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_of_either_name_give_the_same_network(tmp_path, name, source, wrapping):
    original, other = backbone(name, seed=0), backbone(name, seed=1)
    path = tmp_path / "weights.pth"
    torch.save(WRAPPINGS[wrapping](STATES[source](original)), path)
    load_backbone(other, path)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for expected, found in zip(original(image), other(image), strict=True):
            assert torch.allclose(expected, found, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("source", STATES)
def test_a_backbone_is_found_behind_any_prefix(tmp_path, prefix, source):
    original, other = backbone(seed=0), backbone(seed=1)
    state = {f"{prefix}{name}": value for name, value in STATES[source](original).items()}
    if prefix != "_orig_mod.":  # the compiler leaves nothing beside it
        state |= {"head.weight": torch.zeros(2), "queue": torch.zeros(2)}
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    load_backbone(other, tmp_path / "weights.pth")
    torch.testing.assert_close(other.state_dict()["layer4.1.bn2.weight"], original.state_dict()["layer4.1.bn2.weight"])
    assert torch.equal(other.conv1.weight, original.conv1.weight)


def test_of_several_backbones_none_is_taken(tmp_path):
    state = torchvision_state(backbone())
    both = {f"{prefix}{name}": value for prefix in ("encoder_q.", "encoder_k.") for name, value in state.items()}
    torch.save(both, tmp_path / "weights.pth")
    with pytest.raises(ContsegError, match=r"weights\.pth: contains 2 backbones, below encoder_k\., encoder_q\.; save"):
        load_backbone(backbone(), tmp_path / "weights.pth")


def test_safetensors_are_read_bit_by_bit(tmp_path):
    original, other = backbone(seed=0), backbone(seed=1)
    save_file(torchvision_state(original), tmp_path / "weights.safetensors")
    load_backbone(other, tmp_path / "weights.safetensors")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in original.state_dict().items())


def without(name):
    return lambda state: state.pop(name)


MISTAKES = {
    "missing": (without("layer2.0.conv1.weight"), r"misses layer2\.0\.conv1\.weight; is it a 120-tensor ResNet"),
    "unexpected": (
        lambda state: state.update(extra=torch.zeros(1)),
        r"has unexpected extra; take out of the file what is no part of a resnet18",
    ),
    "shape": (
        lambda state: state.update({"conv1.weight": torch.zeros(4, 1, 7, 7)}),
        r"has other shapes for conv1\.weight",
    ),
    "many": (lambda state: [state.pop(name) for name in list(state)[:6]], r"misses .*, .*, .* and 2 more"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_weights_that_do_not_fit_are_named_and_change_nothing(tmp_path, mistake):
    spoil, message = MISTAKES[mistake]
    state = torchvision_state(backbone(seed=0))
    spoil(state)
    torch.save(state, tmp_path / "weights.pth")
    other = backbone(seed=1)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ContsegError, match=message) as caught:
        load_backbone(other, tmp_path / "weights.pth")
    assert str(caught.value).startswith(str(tmp_path / "weights.pth"))
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (
            ResNet("resnet101", width=4),
            "it is a resnet101, and the network is a resnet18; set network.backbone=resnet101, or ",
        ),
        (ResNet("resnet18", width=8), "its width is 8, and that of the network 4; set network.backbone.width=8"),
        (ResNet("resnet18", width=4, deep_stem=True), "its stem is deep; set network.backbone.stem=deep"),
    ],
    ids=["depth", "width", "stem"],
)
@pytest.mark.parametrize("prefix", ["", "model.backbone."])
def test_another_resnet_is_told_with_the_option_that_fits_it(tmp_path, given, advice, prefix):
    torch.save({f"{prefix}{name}": value for name, value in given.state_dict().items()}, tmp_path / "weights.pth")
    with pytest.raises(ContsegError, match=advice):
        load_backbone(backbone("resnet18"), tmp_path / "weights.pth")


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_file_that_would_have_to_be_executed_is_refused_and_not_executed(tmp_path):
    torch.save({"state_dict": Trap(tmp_path / "executed")}, tmp_path / "weights.pth")
    with pytest.raises(ContsegError, match=r"weights\.pth: cannot be read as plain weights"):
        read_tensors(tmp_path / "weights.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_or_missing_file_is_told(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    with pytest.raises(ContsegError, match="weights file not found"):
        read_tensors(path)
    (save_file if suffix == ".safetensors" else torch.save)({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ContsegError, match="cannot be read as") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)


def test_a_file_without_tensors_is_told(tmp_path):
    torch.save([1, 2], tmp_path / "weights.pth")
    with pytest.raises(ContsegError, match="contains a list; expected a dictionary of tensors"):
        read_tensors(tmp_path / "weights.pth")
