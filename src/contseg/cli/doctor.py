"""`contseg doctor`: what contseg finds on this machine, and a short training that checks it."""

import locale
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.table import Table
from rich.text import Text

from contseg import __version__
from contseg.atomic import write_text
from contseg.cli.console import console
from contseg.data.cache import cache_folder
from contseg.data.classes import voc_palette
from contseg.data.files import write_palette_png
from contseg.engine.devices import ROOM_TO_SHARE, cores, workers_of
from contseg.engine.options import TrainingOptions
from contseg.engine.run import Run
from contseg.engine.train import train
from contseg.errors import ContsegError, counted
from contseg.evaluation.predict import predict_image
from contseg.interop.segmenter_file import load_segmenter
from contseg.recipes.build import make_job, start_run
from contseg.recipes.models import open_model
from contseg.recipes.read import read_recipe

VERSIONS = ("torch", "lightning-fabric", "numpy", "pillow", "pydantic", "safetensors")
DEVELOPMENT = {"docs", "dev"}
"""Extras that only work on contseg itself needs."""
SHARED = Path("/dev/shm")
OPTIONS = (
    "scenario.split=1-1", "data.crop=32", "network.backbone.width=4", "network.backbone.output_stride=8",
    "network.head=fcn", "training.epochs=1", "training.batch=4", "training.precision=32",
)  # fmt: skip
"""Of the self-test: a network and steps that train in seconds on a CPU."""

Row = tuple[str, str, str]
"""What, what was found, and what to do about it ("" if it is fine)."""


def run_doctor(quick: bool = False) -> None:
    """Print what is found on this machine, and run the self-test.

    Args:
        quick: leave out the self-test.

    Raises:
        ContsegError: a check of the self-test failed; the checks after it are not run.
    """
    table = Table(show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for what, found, advice in (*system(), *storage(), *extras()):
        table.add_row(what, Text(found + (f"\n{advice}" if advice else "")))
    console.print(table)
    if quick:
        return
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="contseg-doctor-") as folder:
        for what, check in checks(Path(folder)).items():
            start = time.perf_counter()
            try:
                check()
            except Exception as error:  # whatever is broken on this machine
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise ContsegError(f"doctor: not true on this machine: {what} ({reason}); reinstall contseg") from None
            _print(f"ok: {what}, {time.perf_counter() - start:.1f} s")
    _print(f"no problems found in {time.perf_counter() - begin:.0f} s")


def system() -> Iterator[Row]:
    """Versions, devices, cores and the locale."""
    yield "contseg", f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}", ""
    yield "packages", ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS), ""
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    yield "GPUs", ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in gpus) or "none", ""
    threads, workers = torch.get_num_threads(), workers_of(TrainingOptions(workers="auto"))
    default = f"{counted(threads, 'thread')} of PyTorch, {counted(workers, 'worker')} by default"
    yield "cores", f"{cores()} of {os.cpu_count()} usable; {default}", ""
    encoding = (sys.stdout.encoding or "unknown").lower()
    advice = "" if encoding.replace("-", "") == "utf8" else "other characters are printed as codes; set PYTHONUTF8=1"
    yield "locale", f"{locale.setlocale(locale.LC_CTYPE)}, output in {encoding}", advice


def storage() -> Iterator[Row]:
    """Shared memory, the cache, and the space in the current folder."""
    if SHARED.is_dir():
        free = shutil.disk_usage(SHARED).free
        advice = "" if free >= ROOM_TO_SHARE else "too little for worker processes; in a container, set --shm-size=2g"
        yield "shared memory", f"{_size(free)} free in {SHARED}", advice
    try:
        place = cache_folder("doctor")
        write_text(place / "written.txt", "")
        shutil.rmtree(place)
        found, advice = f"{place.parent}, {_size(shutil.disk_usage(place.parent).free)} free", ""
    except (OSError, ContsegError) as error:
        found, advice = f"cannot be written ({error})", "set CONTSEG_CACHE to a folder that can be"
    yield "cache", found, advice
    here = Path.cwd()
    advice = "" if os.access(here, os.W_OK) else "cannot be written; set --out in every command"
    yield "folder", f"{here}, {_size(shutil.disk_usage(here).free)} free", advice


def extras() -> Iterator[Row]:
    """The packages of each extra that are installed, and how to install what is missing."""
    needed: dict[str, list[str]] = {}
    for requirement in metadata.requires("contseg") or ():
        name, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if name and extra and extra[1] not in DEVELOPMENT:
            needed.setdefault(extra[1], []).append(name[0])
    for title, names in sorted(needed.items()):
        versions = {name: _version(name) for name in names}
        missing = [name for name, version in versions.items() if version is None]
        found = ", ".join(f"{name} {version or 'is missing'}" for name, version in versions.items())
        yield f"extra {title}", found, f'install it with: pip install "contseg[{title}]"' if missing else ""


def checks(folder: Path) -> dict[str, Callable[[], None]]:
    """The self-test: what is checked, and a function that raises an error if it fails. They are called in order."""
    data, first, second = folder / "data", folder / "first", folder / "second"
    checks = {
        "files are written and read": lambda: write_squares(data),
        "a network is trained in two steps on the CPU": lambda: train_squares(data, first),
        "another training, with a worker process, has the same weights": lambda: require_same(data, first, second),
        "a saved network predicts": lambda: predict_square(data, first),
    }
    if torch.cuda.is_available():
        checks["a network is trained on the GPU"] = lambda: train_squares(data, folder / "gpu", "training.accelerator=cuda")
    return checks


def write_squares(data: Path) -> None:
    """Write a dataset of twelve images with squares of two classes."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (data / part).mkdir(parents=True)
    for number in range(12):
        mask = np.zeros((32, 32), dtype=np.uint8)
        mask[4:16, 4:28], mask[18:30, 4:28] = 1, 2
        pixels = np.array(voc_palette(3), dtype=np.uint8)[mask] ^ rng.integers(0, 64, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / "images" / f"{number:02d}.png")
        write_palette_png(data / "masks" / f"{number:02d}.png", mask, voc_palette())
    write_text(data / "classes.txt", "background\nred\ngreen\n")
    for subset, numbers in {"train": range(8), "test": range(8, 12)}.items():
        write_text(data / f"{subset}.txt", "".join(f"{number:02d}\n" for number in numbers))


def train_squares(data: Path, folder: Path, *more: str) -> None:
    """Train two steps, the second with one class more."""
    overrides = ["training.accelerator=cpu", "training.workers=0", *more]
    recipe = read_recipe("folder/finetune", [f"data.path={str(data)!r}", *OPTIONS, *overrides])
    start_run(recipe, folder)
    train(make_job(recipe, folder))


def require_same(data: Path, one: Path, other: Path) -> None:
    """Train again with a worker process, and raise ContsegError unless all weights are equal."""
    train_squares(data, other, "training.workers=1")
    weights = [load_segmenter(Run(folder).segmenter_path(1))[0].state_dict() for folder in (one, other)]
    differing = [name for name, value in weights[0].items() if not torch.equal(value, weights[1][name])]
    if differing:
        raise ContsegError(f"{counted(len(differing), 'tensor')} differ between two runs, such as {differing[0]}")


def predict_square(data: Path, folder: Path) -> None:
    """Open the model of a run and predict an image; raise ContsegError unless the result has its size."""
    model = open_model(folder)
    image = np.asarray(Image.open(data / "images" / "00.png"))
    outputs = predict_image(model.segmenter, image, model.inference)
    if outputs.shape != image.shape[:2]:
        raise ContsegError(f"an image of {image.shape[:2]} pixels has a prediction of {outputs.shape}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _print(line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False)
