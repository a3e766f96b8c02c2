"""A segmenter comes back from its file bit by bit, or the file is told to be damaged."""

import json
import os
import stat

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from contseg.data.classes import ClassTable
from contseg.errors import ContsegError
from contseg.interop.segmenter_file import load_segmenter, save_segmenter
from contseg.models.backbones.resnet import ResNet
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

CLASSES = ClassTable(
    ("background", "fox", "cat", "dog"), (0, 300, 3, 7), ((0, 0, 0), (1, 2, 3), (9, 9, 9), (4, 5, 6)), "unlabelled"
)


@pytest.fixture
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    options = NetworkOptions(
        backbone="resnet18", width=4, head_width=8, decision="sigmoid", mean=(0.1, 0.2, 0.3), pooling_size=5
    )
    made = Segmenter(options, [3])
    made.grow(1, "background")
    made(torch.randn(2, 3, 64, 64))  # moves the running statistics
    return made


@pytest.fixture
def saved(segmenter, tmp_path):
    path = tmp_path / "segmenter.safetensors"
    save_segmenter(path, segmenter, CLASSES, {"step": 1})
    return path


def test_it_comes_back_bit_by_bit_in_evaluation_mode(segmenter, saved):
    found, classes = load_segmenter(saved)
    assert classes == CLASSES
    assert found.options == segmenter.options
    assert found.widths == [3, 1]
    assert not found.training
    assert found.state_dict().keys() == segmenter.state_dict().keys()
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in segmenter.state_dict().items())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found(image).logits, segmenter.eval()(image).logits)


def test_channels_last_weights_come_back_too(segmenter, tmp_path):
    segmenter.to(memory_format=torch.channels_last)
    save_segmenter(tmp_path / "s", segmenter, CLASSES)
    found, _ = load_segmenter(tmp_path / "s")
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in segmenter.state_dict().items())


def test_the_header_says_where_it_comes_from_in_json(saved):
    with safe_open(saved, framework="pt") as file:
        header = json.loads(file.metadata()["contseg"])
    assert header["source"] == {"step": 1}
    assert header["network"]["backbone"]["name"] == "resnet18"


def test_nothing_else_is_left_beside_the_file(saved):
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_told(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ContsegError, match=r"cannot be read as a segmenter .*; the file is damaged") as caught:
        load_segmenter(saved)
    assert str(caught.value).startswith(str(saved))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ContsegError, match="segmenter file not found; this is a folder, which load_pretrained reads"):
        load_segmenter(tmp_path)
    with pytest.raises(ContsegError, match="segmenter file not found; check the path"):
        load_segmenter(tmp_path / "absent")


def test_other_safetensors_are_told_to_be_none_of_ours(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ContsegError, match="no segmenter of contseg"):
        load_segmenter(tmp_path / "other.safetensors")


def foreign_files(folder):
    """Files that are whole and no segmenter of ours, and what is right to do with each."""
    backbone = ResNet("resnet18", width=4).state_dict()
    contents = {
        "backbone.pth": (
            {"state_dict": {f"module.{name}": value for name, value in backbone.items()}},
            "backbone_weights=FILE",
        ),
        "mib.pth": (
            {"model_state": {"body.mod1.a": torch.zeros(1), "cls.0.bias": torch.zeros(1)}},
            "it is a checkpoint of mib; .* contseg convert",
        ),
        "idec.pt": (
            {"classifier.aspp_l1.a": torch.zeros(1), "backbone.a": torch.zeros(1)},
            "checkpoint of idec; turn it into",
        ),
        "other.pth": (
            {"a.b": torch.zeros(1), "c": torch.zeros(1)},
            r"it contains 2 tensors such as a\.b, c, of no supported code base",
        ),
        "epochs.pth": ({"epoch": 3}, r"contains no tensors \(found epoch\)"),
    }
    for name, (content, advice) in contents.items():
        torch.save(content, folder / name)
        yield folder / name, advice
    save_file(backbone, folder / "backbone.safetensors")
    yield folder / "backbone.safetensors", "backbone_weights=FILE"
    (folder / "notes.txt").write_text("these are notes")
    yield folder / "notes.txt", "neither a segmenter nor a checkpoint that can be read"


def test_a_whole_file_of_another_kind_is_never_called_damaged(tmp_path):
    for path, advice in foreign_files(tmp_path):
        with pytest.raises(ContsegError, match=rf"no segmenter of contseg; .*{advice}") as caught:
            load_segmenter(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)
        assert "is damaged" not in str(caught.value)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_a_file_may_be_read_by_whom_the_umask_lets_read(segmenter, tmp_path, umask):
    before = os.umask(umask)
    try:
        save_segmenter(tmp_path / "s.safetensors", segmenter, CLASSES)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s.safetensors").stat().st_mode) == 0o666 & ~umask


def spoiled(saved, change) -> None:
    with safe_open(saved, framework="pt") as file:
        header = json.loads(file.metadata()["contseg"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, saved, metadata={"contseg": json.dumps(header)})


MISTAKES = {
    "a tensor is missing": lambda header, tensors: tensors.pop("backbone.conv1.weight"),
    "a tensor has another shape": lambda header, tensors: tensors.update({"head.norm.weight": torch.zeros(9)}),
    "widths differ": lambda header, tensors: header.update(widths=[3, 2]),
    "an option is unknown": lambda header, tensors: header["network"].update(colour=1),
    "the backbone is unknown": lambda header, tensors: header["network"].update(backbone="vgg"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_tensors_that_do_not_fit_the_header_are_told(saved, mistake):
    spoiled(saved, MISTAKES[mistake])
    with pytest.raises(ContsegError, match="cannot be read as a segmenter"):
        load_segmenter(saved)
