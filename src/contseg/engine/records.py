"""Tensors in a file on disk: written one record after the other, and memory-mapped when they are read."""

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from contseg.atomic import size_text, writable
from contseg.errors import ContsegError

ALIGNED = 64
"""Bytes of which every tensor's place is a multiple."""
Entry = tuple[str, list[int], int]
"""Type of the numbers, shape and first byte of a tensor."""


def bytes_of(record: Mapping[str, Tensor]) -> int:
    """The bytes that a record takes in a file.

    Example:
        >>> bytes_of({"a": torch.zeros(3), "b": torch.zeros(65, dtype=torch.uint8)})
        192
    """
    return sum(-(-value.numel() * value.element_size() // ALIGNED) * ALIGNED for value in record.values())


def require_space(folder: Path, needed: int, what: str, ways: str) -> None:
    """Raise ContsegError unless a folder has room for files.

    Args:
        needed: their bytes, of which a twentieth more must be free.
        what: what they contain, with the key of the recipe.
        ways: what to do about it.
    """
    free = shutil.disk_usage(folder).free
    if needed * 1.05 > free:
        raise ContsegError(f"{what} take {size_text(needed)} in {folder}, where {size_text(free)} are free; {ways}")


class RecordWriter:
    """Writes records to a file; as a context manager it closes the file, and without an error it writes their index.

    Args:
        path: of the file; its index is `NAME.json`.

    Raises:
        UnwritableError: the disk is full or read-only.
    """

    def __init__(self, path: Path):
        self._path = path
        self._index: list[dict[str, Entry]] = []
        self._end = 0
        with writable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _index_of(path).unlink(missing_ok=True)
            self._file = path.open("wb")

    def append(self, record: Mapping[str, Tensor]) -> None:
        """Write the tensors of a record, of any device."""
        entries: dict[str, Entry] = {}
        with writable(self._path):
            for name, value in record.items():
                data = value.detach().cpu().contiguous()
                entries[name] = (str(data.dtype).removeprefix("torch."), list(data.shape), self._end)
                self._end += self._file.write(data.reshape(-1).view(torch.uint8).numpy().data)
                padding = -self._end % ALIGNED
                self._file.write(bytes(padding))
                self._end += padding
        self._index.append(entries)

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with writable(self._path):
            self._file.close()
            if kind is None:
                _index_of(self._path).write_text(json.dumps({"bytes": self._end, "records": self._index}), encoding="utf-8")


class RecordReader:
    """The records of a file that a `RecordWriter` completed. Only what is read is loaded into memory.

    Raises:
        OSError, ValueError, KeyError: the file or its index is missing or cut off.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "maps.bin"
        >>> with RecordWriter(path) as writer:
        ...     writer.append({"a": torch.arange(3.0)})
        ...     writer.append({"a": torch.ones(2, 2, dtype=torch.bfloat16), "b": torch.tensor([7], dtype=torch.uint8)})
        >>> reader = RecordReader(path)
        >>> len(reader), reader[0]["a"].tolist(), reader[1]["a"].shape, reader[1]["b"].item()
        (2, [0.0, 1.0, 2.0], torch.Size([2, 2]), 7)
    """

    def __init__(self, path: Path):
        content = json.loads(_index_of(path).read_text(encoding="utf-8"))
        self._records: list[dict[str, Entry]] = content["records"]
        size = int(content["bytes"])
        if path.stat().st_size != size:
            raise ValueError(f"{path}: has {path.stat().st_size} bytes, not {size}")
        self._bytes = _mapped(path) if size else torch.empty(0, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """The tensors of a record, on CPU. They are the file itself: writing to them ends the process."""
        found = {}
        for name, (kind, shape, start) in self._records[number].items():
            dtype: torch.dtype = getattr(torch, kind)
            count = dtype.itemsize * torch.Size(shape).numel()
            found[name] = self._bytes[start : start + count].view(dtype).view(shape)
        return found


def _mapped(path: Path) -> Tensor:
    """The bytes of a file, which may be larger than the memory: pages are loaded when they are read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")  # PyTorch has no tensors that are read-only
        return torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="r"))


def _index_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
