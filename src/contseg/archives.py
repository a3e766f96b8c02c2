"""Arrays and weights in archives of any origin: what a file claims is checked before memory is allocated."""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 2**32
"""The most bytes of all arrays of a file; the largest one of this package counts pixels of 118 000 images."""


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is damaged, needs more than `MAX_BYTES`, or contains objects or headers that do not fit their data.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.npz"
        >>> np.savez_compressed(path, numbers=np.arange(3))
        >>> read_arrays(path)
        {'numbers': array([0, 1, 2])}
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
            for member in archive.infolist():
                _require_fitting(archive, member)
        with np.load(path, allow_pickle=False) as saved:
            return dict(saved)
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds for damaged files
        raise ValueError(" ".join(str(error).split())[:120] or type(error).__name__) from None


def read_array(path: Path) -> np.ndarray:
    """The array of a .npy file.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged, or contains objects or a header that does not fit its size.
    """
    try:
        # mapped, as memory is then only allocated for what is in the file
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except OSError:
        raise
    except Exception as error:  # NumPy raises many kinds for damaged files
        raise ValueError(" ".join(str(error).split())[:120] or type(error).__name__) from None


def read_pickle(path: Path) -> Any:
    """The tensors, containers and plain values of a file of `torch.save`, on the CPU; no code in it is executed.

    Raises:
        ValueError: it is compressed, so that a small file could fill the memory.
        Exception: of many kinds, from PyTorch: it is damaged, or contains other objects.
    """
    import torch  # here, as listing recipes needs the other functions only

    if is_inflating(path):
        raise ValueError("it is compressed, which PyTorch's files never are")
    return torch.load(path, map_location="cpu", weights_only=True)


def is_inflating(path: Path) -> bool:
    """Whether a file is a zip archive that becomes larger when it is read; those of PyTorch never do."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):  # the fourth: a newer format of zip
        return False  # another format, or damaged: reported by its reader
    compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    return compressed or sum(member.file_size for member in members) > path.stat().st_size


def _require_fitting(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise ValueError if the header of an array describes another number of bytes than follow it."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read_header(file)
        claimed = math.prod(shape) * kind.itemsize
        if claimed != member.file_size - file.tell():
            raise ValueError(f"{member.filename}: a header of {claimed} bytes for {member.file_size - file.tell()}")
