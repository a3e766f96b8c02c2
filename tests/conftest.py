"""What all tests share: an own cache, few threads, and tiny networks and data."""

import gc
import os
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contseg.data.classes import voc_palette
from contseg.data.files import write_palette_png
from contseg.data.open import DATASETS
from contseg.methods.registry import METHODS
from contseg.models.adopted.options import MODELS
from tests.trees.toy_panoptic import ToyPanoptic, write_toy


def pytest_collection_finish():
    """Imported modules stay in memory: the garbage collector, with a tenth of the time of all tests, need not visit them."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    """What a fixture draws at random depends on its name alone, not on the tests that its worker ran before."""
    torch.manual_seed(zlib.crc32(fixturedef.argname.encode()))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    """What a test draws at random depends on its name alone."""
    torch.manual_seed(zlib.crc32(item.nodeid.encode()))


@pytest.fixture(autouse=True, scope="session")
def signals_as_in_a_terminal():
    """A shell ignores Ctrl-C in what it starts in the background, `nohup` SIGHUP; child processes would inherit it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if before[number] is signal.SIG_IGN:
            signal.signal(number, default)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Nothing is read from or left in the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("CONTSEG_CACHE")
    os.environ["CONTSEG_CACHE"] = str(folder)
    torch.set_num_threads(1)
    yield folder
    if before is None:
        del os.environ["CONTSEG_CACHE"]
    else:
        os.environ["CONTSEG_CACHE"] = before


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk():
    """Tests survive no power failure, and a sync takes up to 0.1 s."""
    before, os.fsync = os.fsync, lambda file: None
    yield
    os.fsync = before


@pytest.fixture
def largest_file():
    """Limits the size of files that this process writes, as a full disk does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def forgotten():
    """Parts that a test registers are forgotten after it."""
    registries = (METHODS, DATASETS, MODELS)
    known = [set(registry) for registry in registries]
    yield
    for registry, before in zip(registries, known, strict=True):
        for name in set(registry) - before:
            registry.unregister(name)


TINY = [
    "data.options={train: 73, test: 12, size: 48}",
    "data.crop=32",
    "network.width=8",
    "network.head_width=16",
    "network.initialisation=he",
    "training.epochs=2",
    "training.batch=4",
]
"""Overrides that make a digits recipe run in seconds: five-class first step, then one class each. After so few updates, only
a network that started from large weights predicts several classes."""


@pytest.fixture
def tiny_overrides() -> list[str]:
    return list(TINY)


@pytest.fixture
def make_folder(tmp_path):
    """Writes a dataset folder of squares: `make_folder(count)` returns its path."""

    def make(count: int = 8, classes: tuple[str, ...] = ("background", "red", "green", "blue"), size: int = 32) -> Path:
        root = tmp_path / "squares"
        rng = np.random.default_rng(0)
        for part in ("images", "masks"):
            (root / part).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            mask = np.zeros((size, size), dtype=np.uint8)
            for _ in range(2):
                top, left = rng.integers(0, size - 10, 2)
                mask[top : top + 10, left : left + 10] = rng.integers(1, len(classes))
            mask[0, 0] = 1 + number % (len(classes) - 1)  # every class occurs
            image = np.array(voc_palette(len(classes)), dtype=np.uint8)[mask]
            Image.fromarray(image).save(root / "images" / f"{number:03d}.png")
            write_palette_png(root / "masks" / f"{number:03d}.png", mask, voc_palette())
        names = [f"{number:03d}" for number in range(count)]
        (root / "train.txt").write_text("\n".join(names[: count * 3 // 4]) + "\n")
        (root / "test.txt").write_text("\n".join(names[count * 3 // 4 :]) + "\n")
        (root / "classes.txt").write_text("\n".join(classes) + "\n")
        return root

    return make


@pytest.fixture(scope="module")
def toy_data(tmp_path_factory) -> Iterator[Path]:
    """The folder of the panoptic dataset `toy-panoptic`, which is registered meanwhile."""
    DATASETS.register(ToyPanoptic)
    yield write_toy(tmp_path_factory.mktemp("toy") / "data")
    DATASETS.unregister("toy-panoptic")
