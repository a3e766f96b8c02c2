"""Weights, states and arrays from anywhere: nothing in them is executed, and headers are compared with what follows."""

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import contseg
from contseg.archives import is_inflating, read_array, read_arrays, read_pickle
from contseg.data.classes import ClassTable
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.interop.checkpoint import read_tensors
from contseg.interop.segmenter_file import describe, header_of, load_segmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from tests.security.refusal import bounded_memory, refusal


class Started:
    """Pickles to a call of `os.mkdir`."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


PICKLES = {
    "protocol 0": b"cos\nmkdir\n(S'PLACE'\ntR.",
    "protocol 1": b"(S'PLACE'\nios\nmkdir\n.",
    "object": b"(cos\nmkdir\nS'PLACE'\no.",
    "protocol 4": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c\x05PLACE\x85R.",
    "build": b"\x80\x02cbuiltins\nexec\nU\x05PLACE\x85R.",
    "getattr": b"cbuiltins\ngetattr\n(cos\nmkdir\nS'x'\ntR.",
    "torch": b"ctorch.hub\nload\n(S'PLACE'\ntR.",
    "numpy": b"cnumpy\nload\n(S'PLACE'\ntR.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"\x80\x02U\x01aQ.",
    "length": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
    "negative length": b"\x80\x02\x8a\xff" + b"\xff" * 300 + b".",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b".",
    "memo": b"\x80\x02r\xff\xff\xff\x7f.",
    "marks": b"(" * 20_000 + b".",
    "empty lists": b"]" * 20_000 + b".",
    "nothing": b"",
    "zeros": b"\0" * 100,
    "no pickle": b"PK\3\4 and rubbish",
}


@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors", "bin"])
@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_is_refused_and_nothing_runs(tmp_path, name, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(PICKLES[name].replace(b"PLACE", b"PLACE"))
    assert "cannot be read" in refusal(read_tensors, path)
    assert "no segmenter" in refusal(load_segmenter, path) or "cannot be read" in refusal(load_segmenter, path)
    assert header_of(path) is None


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: {"state_dict": {"a": one}}, lambda one: [one]])
def test_a_file_of_torch_with_a_call_in_it_is_refused(tmp_path, wrap, zipped):
    path, place = tmp_path / "a.pth", tmp_path / "started"
    torch.save(wrap(Started(place)), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ContsegError, match=r"it would run .*mkdir, and nothing was executed"):
        read_tensors(path)
    assert not place.exists()


def test_a_compressed_archive_is_refused_as_torch_writes_none(tmp_path):
    torch.save({"a": torch.zeros(9)}, tmp_path / "a.pth")
    assert not is_inflating(tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as source,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for name in source.namelist():
            out.writestr(name, b"\0" * 50_000_000 if name.endswith("data/0") else source.read(name))
    assert "it is compressed" in refusal(read_tensors, tmp_path / "b.pth")
    with pytest.raises(ValueError, match="it is compressed"):
        read_pickle(tmp_path / "b.pth")
    run = Run(tmp_path)
    state = run.state_path(0)
    state.parent.mkdir(parents=True)
    (tmp_path / "b.pth").rename(state)
    run.manifest.record(state)
    assert "state.pt: cannot be read (it is compressed" in refusal(run.load_state, 0)


def test_every_file_of_torch_is_read_where_compressed_ones_are_refused():
    sources = Path(contseg.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if "torch.load(" in path.read_text(encoding="utf-8")] == ["archives.py"]


def tensors_file(header: object, body: bytes = b"0000", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def one_tensor(**changes: object) -> dict[str, object]:
    return {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes}


HEADERS = {
    "length beyond the file": tensors_file(b"{}", length=2**20),
    "length of exabytes": tensors_file(b"{}", length=2**63),
    "negative side": tensors_file(one_tensor(shape=[-1])),
    "huge side": tensors_file(one_tensor(shape=[2**62, 4])),
    "overflowing sides": tensors_file(one_tensor(shape=[2**32, 2**32])),
    "fraction": tensors_file(one_tensor(shape=[1.5])),
    "end beyond the file": tensors_file(one_tensor(data_offsets=[0, 400])),
    "end before begin": tensors_file(one_tensor(data_offsets=[4, 0])),
    "negative begin": tensors_file(one_tensor(data_offsets=[-4, 0])),
    "unknown type": tensors_file(one_tensor(dtype="X")),
    "no offsets": tensors_file({"a": {"dtype": "F32", "shape": [1]}}),
    "overlap": tensors_file(one_tensor() | {"b": one_tensor()["a"]}),
    "a gap": tensors_file(one_tensor(), b"0" * 400),
    "a list": tensors_file([1]),
    "deep": tensors_file(b'{"a":' + b"[" * 100_000 + b"]" * 20_000 + b"}"),
    "not JSON": tensors_file(b"{'a': 1}"),
    "not UTF-8": tensors_file(b'{"\xff": 1}'),
    "twice": tensors_file(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'
    ),
    "eight bytes": b"\0" * 8,
    "seven bytes": b"\0" * 7,
}
DESCRIPTIONS = {
    "deep": "[" * 100_000,
    "a list": "[1]",
    "a number": "1",
    "digits": "9" * 5000,
    "null": "null",
    "nothing": "",
    "half": '{"network": {',
    "wrong types": '{"network": 1, "widths": "a", "classes": []}',
    "NaN": '{"network": {}, "widths": [NaN], "classes": {}}',
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_does_not_fit_its_file_is_refused(tmp_path, name):
    path = tmp_path / "a.safetensors"
    path.write_bytes(HEADERS[name])
    assert refusal(load_segmenter, path)
    assert refusal(load_segmenter, path, "meta")
    assert refusal(read_tensors, path)
    assert header_of(path) is None


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_description_that_is_none_is_refused(tmp_path, name):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"contseg": DESCRIPTIONS[name]})
    assert refusal(load_segmenter, path)
    assert refusal(load_segmenter, path, "meta")


SEGMENTER = Segmenter(NetworkOptions(backbone={"name": "resnet18", "width": 4}, head={"name": "fcn", "width": 8}), [3])
TABLE = ClassTable.of(["background", "cat", "dog"])
ADOPTED = {"name": "adopted", "classifier": ["classifier.4"], "config": {}}
LIES = [
    (("network", "backbone", "width"), 100_000),
    (("network", "backbone", "width"), 10**12),
    (("network", "head", "width"), 10**8),
    (("network", "head", "name"), "os.system"),
    (("network", "backbone", "name"), "../../etc/passwd"),
    (("network", "backbone"), {"name": "timm", "model": "hf-hub:someone/something"}),
    (("network", "backbone"), ADOPTED | {"library": "os", "architecture": "system"}),
    (("network", "backbone"), ADOPTED | {"library": "torchvision", "architecture": "__import__"}),
    (("network", "backbone"), ADOPTED | {"library": "torchvision", "architecture": "fcn_resnet50", "config": {"a": 1}}),
    (("network",), []),
    (("network",), None),
    (("widths",), [10**9]),
    (("widths",), [1] * 1_000_000),
    (("widths",), [-3]),
    (("widths",), []),
    (("widths",), "abc"),
    (("widths",), [1.5, 1.5]),
    (("classes",), None),
    (("classes", "names"), [1, 2, 3]),
    (("classes", "names"), ["a", "b"]),
    (("classes", "names"), ["background", "a\nb", "c"]),
    (("classes", "names"), ["background", "\ud800", "c"]),
    (("classes", "names"), ["background", "", "c"]),
    (("classes", "names"), [[1], {"a": 1}, 3]),
    (("classes", "ids"), ["a", "b", "c"]),
    (("classes", "ids"), [0, 1, 10**12]),
    (("classes", "ids"), [0, -1, 2]),
    (("classes", "ids"), [0, 1.5, 2]),
    (("classes", "colours"), [[1, 2, 3], [-1, 0, 0], [0, 0, 0]]),
    (("classes", "colours"), [[1, 2], [3, 4], [5, 6]]),
    (("classes", "background"), "whatever"),
    (("classes", "void"), [10**12]),
    (("classes", "void"), ["x"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value"), LIES, ids=[f"{'.'.join(place)}-{number}" for number, (place, _) in enumerate(LIES)]
)
def test_a_description_of_another_network_is_refused_before_memory_is_allocated(tmp_path, place, value):
    header = json.loads(json.dumps(describe(SEGMENTER, TABLE)))
    inner = header
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = tmp_path / "a.safetensors"
    save_file(
        {key: one.contiguous() for key, one in SEGMENTER.state_dict().items()},
        path,
        metadata={"contseg": json.dumps(header)},
    )
    assert str(path) in refusal(load_segmenter, path)
    assert str(path) in refusal(load_segmenter, path, "meta")


def npz(**members: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return data.getvalue()


def npy(header: str, body: bytes = b"\0" * 8) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + body


OBJECTS = io.BytesIO()
np.save(OBJECTS, np.array([{}], dtype=object), allow_pickle=True)
ARRAYS = {
    "terabytes": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"),
    "overflow": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (9223372036854775807, 4), }"),
    "negative": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }"),
    "too few": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }"),
    "code": npy("{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (1,), }"),
    "deep": npy("(" * 5000),
    "objects": OBJECTS.getvalue(),
    "object type": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickle.dumps([1])),
    "no header": b"\x93NUMPY\1\0",
    "rubbish": b"rubbish",
    "nothing": b"",
    "version": b"\x93NUMPY\x09\0" + b"\0" * 80,
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_whose_header_does_not_fit_is_refused(tmp_path, name):
    (tmp_path / "a.npz").write_bytes(npz(a=ARRAYS[name]))
    (tmp_path / "a.npy").write_bytes(ARRAYS[name])
    with bounded_memory():
        with pytest.raises(ValueError, match=r"."):
            read_arrays(tmp_path / "a.npz")
        with pytest.raises(ValueError, match=r"."):
            read_array(tmp_path / "a.npy")


@pytest.mark.parametrize("cut", range(0, 160, 20))
def test_a_truncated_archive_of_arrays_is_refused(tmp_path, cut):
    (tmp_path / "a.npz").write_bytes(npz(a=npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }"))[:cut])
    with pytest.raises(ValueError, match=r"."):
        read_arrays(tmp_path / "a.npz")
