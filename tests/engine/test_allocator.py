"""Memory of freed tensors stays with the process during a run, and is returned after it."""

import ctypes
import json
import os
import subprocess
import sys

import pytest

from contseg.engine import allocator
from contseg.engine.allocator import kept_memory

SCRIPT = """
import json, re, resource
from contextlib import suppress
from pathlib import Path
import torch
from contseg.engine.allocator import kept_memory

VALUES = 16 << 20
SIZE = 4 * VALUES  # 64 MiB: more than glibc keeps on its own


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10


found = {"cleared": [], "returned": []}
for wanted in (False, True):
    with kept_memory(wanted):
        for _ in range(20):  # small pieces between large ones settle
            torch.ones(VALUES)
        before = faults()
        torch.ones(VALUES)
        found["cleared"].append((faults() - before) * resource.getpagesize() / SIZE)
for error in (None, ValueError()):
    with suppress(ValueError), kept_memory():
        torch.ones(VALUES)
        held = resident()
        if error:
            raise error
    found["returned"].append((held - resident()) / SIZE)
print(json.dumps(found))
"""


@pytest.fixture
def glibc(monkeypatch):
    for name in ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    with kept_memory() as kept:
        if not kept:
            pytest.skip("needs glibc")


def test_no_page_is_cleared_twice_inside_and_memory_is_returned_after(glibc):
    # In a process of its own: one that once asked for too much memory allocates elsewhere.
    found = json.loads(subprocess.check_output([sys.executable, "-c", SCRIPT], env=os.environ, text=True))
    outside, inside = found["cleared"]
    assert outside > 0.9
    assert inside < 0.02
    assert min(found["returned"]) > 0.9


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
