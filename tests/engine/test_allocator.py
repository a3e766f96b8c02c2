"""Memory of freed tensors stays with the process during a run, and is returned after it."""

import ctypes
import re
from pathlib import Path

import pytest
import torch

from contseg.engine import allocator
from contseg.engine.allocator import kept_memory

resource = pytest.importorskip("resource")
VALUES = 16 << 20
"""64 MiB: more than glibc keeps on its own."""


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident():
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10


@pytest.fixture
def glibc(monkeypatch):
    for name in ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    with kept_memory() as kept:
        if not kept:
            pytest.skip("needs glibc")


def test_no_page_is_cleared_twice_inside_and_memory_is_returned_after(glibc):
    pages = 4 * VALUES // resource.getpagesize()
    for kept in (False, True, False):
        with kept_memory(kept):
            torch.ones(VALUES)
            before = faults()
            torch.ones(VALUES)
            cleared = faults() - before
        assert (cleared < pages / 50) == kept
    with kept_memory():
        torch.ones(VALUES)
        held = resident()
    assert held - resident() > 3 * VALUES


def test_memory_is_returned_after_an_error(glibc):
    held = []

    @kept_memory()
    def stopped():
        torch.ones(VALUES)
        held.append(resident())
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stopped()
    assert held[0] - resident() > 3 * VALUES


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_TRIM_THRESHOLD_", "1000"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1000")]
)
def test_what_the_environment_configures_stays(glibc, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with kept_memory() as kept:
        assert not kept


@pytest.mark.parametrize("error", [OSError, TypeError])
def test_systems_without_glibc_train_as_before(monkeypatch, error):
    def without(name):
        raise error

    monkeypatch.setattr(allocator.ctypes, "CDLL", without)
    with kept_memory() as kept:
        assert not kept
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with kept_memory() as kept:
        assert not kept
