"""Foreign files are read as tensors alone; whatever else they ask for is refused, named, and not done."""

import collections
import os
import pickle

import numpy as np
import pytest
import torch

from contseg.errors import ContsegError
from contseg.interop.checkpoint import read_tensors

STATE = {"a.weight": torch.arange(3.0), "b.count": torch.tensor(4)}
CONTENTS = {
    "bare": STATE,
    "ordered": collections.OrderedDict(STATE),
    "model_state": {"epoch": 3, "model_state": STATE, "optimizer_state": {"a.weight": torch.zeros(1)}, "best_score": 0.5},
    "NumPy number": {"model_state": STATE, "best_score": np.float64(0.31), "epoch": np.int64(3), "rate": np.float32(0.1)},
    "segmentor": {"cur_epoch": 3, "segmentor": {f"module.{name}": value for name, value in STATE.items()}, "task_id": 1},
    "model": {"cur_iter": 3, "model": STATE},
    "state_dict": {"state_dict": {f"module.{name}": value for name, value in STATE.items()}},
    "with prototypes": {"model_state": STATE, "prototypes": torch.zeros(2, 2), "count_features": torch.zeros(2)},
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("zipped", [True, False])
def test_every_known_container_is_opened(tmp_path, content, zipped):
    torch.save(CONTENTS[content], tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    found = read_tensors(tmp_path / "file.pth")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], value) for name, value in STATE.items())


def test_a_number_of_old_numpy_is_read_too(tmp_path):
    """NumPy 1 called the module of its scalars numpy.core, NumPy 2 numpy._core."""
    torch.save(CONTENTS["NumPy number"], tmp_path / "file.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "file.pth").read_bytes()
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    assert (new in content) != (old in content)
    other = content.replace(new, old) if new in content else content.replace(old, new)
    (tmp_path / "file.pth").write_bytes(other)
    assert read_tensors(tmp_path / "file.pth").keys() == STATE.keys()


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.given = function, arguments

    def __reduce__(self):
        return self.given


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda path: Call(os.mkdir, str(path)), "posix.mkdir"),
        (lambda path: Call(open, str(path), "w"), "_?io.open"),
        (lambda path: Call(eval, f"__import__('os').mkdir({str(path)!r})"), r"(builtins\.)?eval"),
        (lambda path: Call(np.save, str(path), 1), "numpy.save"),
        (lambda path: Call(np.fromfile, str(path)), "numpy"),
    ],
    ids=["mkdir", "open", "eval", "numpy.save", "numpy.fromfile"],
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_code_is_refused_by_name_and_not_executed(tmp_path, make, name, wrapped):
    mark = tmp_path / "executed"
    call = make(mark)
    torch.save({"model_state": STATE, "best_score": call} if wrapped else call, tmp_path / "file.pth")
    with pytest.raises(ContsegError, match=rf"file\.pth: cannot be read as plain weights: it would run {name}") as caught:
        read_tensors(tmp_path / "file.pth")
    assert "nothing was executed" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "file.pth"]
    if name == "posix.mkdir":  # the trap works where nobody looks
        pickle.loads(pickle.dumps(make(mark)))
        assert mark.exists()


def test_what_is_allowed_for_a_file_stays_refused_elsewhere(tmp_path):
    torch.save(CONTENTS["NumPy number"], tmp_path / "file.pth")
    read_tensors(tmp_path / "file.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "file.pth", weights_only=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as plain weights"),
        (b"\x89PNG\r\n", "cannot be read as plain weights"),
        (b"hello, I am a text", "cannot be read as plain weights"),
    ],
)
def test_the_wrong_kind_of_file_is_told(tmp_path, content, message):
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(ContsegError, match=message) as caught:
        read_tensors(tmp_path / "file.pth")
    assert "\n" not in str(caught.value)


def test_a_file_without_tensors_says_what_it_holds(tmp_path):
    torch.save({"epoch": 1, "lr": 2.0}, tmp_path / "file.pth")
    with pytest.raises(ContsegError, match=r"contains no tensors \(found epoch, lr\); expected weights under state_dict"):
        read_tensors(tmp_path / "file.pth")
