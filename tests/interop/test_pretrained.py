"""A segmenter's folder comes back bit by bit, or one line says what is wrong with it."""

import json

import pytest
import torch
from safetensors.torch import save_file

from contseg import load_pretrained, save_pretrained
from contseg.data.classes import ClassTable
from contseg.errors import ContsegError
from contseg.interop.pretrained import open_segmenter
from contseg.interop.segmenter_file import load_segmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

CLASSES = ClassTable(("background", "fox", "cat"), (0, 300, 3), ((0, 0, 0), (1, 2, 3), (9, 9, 9)), "unscored", (5, 6))


def made(unknown: bool = False) -> Segmenter:
    torch.manual_seed(0)
    options = NetworkOptions(
        backbone="resnet18", width=4, head_width=8, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), unknown=unknown
    )
    segmenter = Segmenter(options, [1, 1, 1] if unknown else [2])
    segmenter.grow(1, "random")
    segmenter(torch.randn(2, 3, 64, 64))
    return segmenter


@pytest.fixture
def folder(tmp_path):
    return save_pretrained(tmp_path / "new" / "folder", made(), CLASSES, {"from": "here"})


@pytest.mark.parametrize("unknown", [False, True])
def test_it_comes_back_bit_by_bit(tmp_path, unknown):
    segmenter = made(unknown)
    save_pretrained(tmp_path, segmenter, CLASSES)
    for found, classes in (load_pretrained(tmp_path), open_segmenter(tmp_path), load_segmenter(tmp_path / WEIGHTS)):
        assert classes == CLASSES
        assert found.options == segmenter.options
        assert found.widths == segmenter.widths
        assert not found.training
        assert all(torch.equal(value, found.state_dict()[name]) for name, value in segmenter.state_dict().items())


WEIGHTS = "segmenter.safetensors"


def test_what_it_is_stands_in_json(folder):
    about = json.loads((folder / "segmenter.json").read_text())
    assert about["network"]["mean"] == [0.1, 0.2, 0.3]
    assert about["network"]["std"] == [0.4, 0.5, 0.6]
    assert about["classes"]["names"] == list(CLASSES.names)
    assert (about["classes"]["background"], about["classes"]["void"]) == ("unscored", [5, 6])
    assert about["widths"] == [2, 1]
    assert about["source"] == {"from": "here"}
    assert sorted(path.name for path in folder.iterdir()) == ["segmenter.json", WEIGHTS]


def test_it_can_be_written_over(folder):
    save_pretrained(folder, made(unknown=True), CLASSES)
    assert load_pretrained(folder)[0].options.unknown


def changed(folder, change) -> None:
    path = folder / "segmenter.json"
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


def cut(folder) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-10])


def flip(folder) -> None:
    path = folder / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


MISTAKES = {
    "truncated": (cut, r"segmenter\.safetensors: SHA-256 is \w{12}\.\.\., in segmenter\.json .*cut short"),
    "one bit": (flip, r"segmenter\.safetensors: SHA-256 is"),
    "hash": (lambda f: changed(f, lambda about: about.update(sha256="0" * 64)), r"in segmenter\.json 000000000000\.\.\."),
    "hash of another kind": (
        lambda f: changed(f, lambda about: about.update(sha256=None)),
        r"in segmenter\.json None\.\.\.",
    ),
    "no json": (lambda f: (f / "segmenter.json").unlink(), r"segmenter\.json: not found"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), r"segmenter\.safetensors: segmenter file not found"),
    "torn json": (lambda f: (f / "segmenter.json").write_text("{"), r"segmenter\.json: not JSON"),
    "a list": (lambda f: (f / "segmenter.json").write_text("[]"), r"segmenter\.json: contains a list"),
    **{
        f"without {key}": (
            lambda f, key=key: changed(f, lambda about: about.pop(key)),
            rf"segmenter\.json: lacks '{key}'; expected keys network, widths",
        )
        for key in ("network", "widths", "classes", "source", "sha256")
    },
    "renamed class": (
        lambda f: changed(f, lambda about: about["classes"]["names"].__setitem__(1, "wolf")),
        r"segmenter\.json: 'classes' differs from segmenter\.safetensors",
    ),
    "other mean": (
        lambda f: changed(f, lambda about: about["network"].update(mean=[0, 0, 0])),
        r"segmenter\.json: 'network' differs",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_whatever_is_wrong_is_one_line_that_names_it(folder, mistake):
    spoil, message = MISTAKES[mistake]
    spoil(folder)
    with pytest.raises(ContsegError, match=message) as caught:
        load_pretrained(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_the_wrong_kind_of_file_is_told_even_with_a_right_hash(folder):
    from contseg.interop.pretrained import file_sha256

    save_file({"a": torch.zeros(1)}, folder / WEIGHTS)
    changed(folder, lambda about: about.update(sha256=file_sha256(folder / WEIGHTS)))
    with pytest.raises(ContsegError, match="no segmenter of contseg"):
        load_pretrained(folder)


def test_classes_that_are_not_as_many_as_the_outputs_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ContsegError, match="2 classes for a segmenter of 3 outputs"):
        save_pretrained(tmp_path / "folder", made(), CLASSES.subset([0, 3]))
    assert not (tmp_path / "folder").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ContsegError, match=r"cannot be written \(.*\)"):
        save_pretrained(tmp_path / "file", made(), CLASSES)
