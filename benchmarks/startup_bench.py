"""Seconds from the start of a command to its help, to its first training batch, and to the word that a run is finished.

    python -m benchmarks.startup_bench

A user waits by the wall clock, which also counts what other programs do; the time of the processor does not.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from contseg.data.classes import voc_palette
from contseg.data.files import write_palette_png

CLASSES, IMAGES, REPEATS = 20, 60, 5
SMALL = ["network.backbone=resnet18", "network.width=8", "network.head_width=16", "data.crop=32", "training.epochs=1"]
LARGE = ["network.backbone=resnet50", "network.width=64", "data.crop=512"]

BEGINNING = """
import os, sys, time
from contseg.cli import main

def ready():
    print("ready", time.time(), sum(os.times()[:2]), flush=True)
    os._exit(0)
"""
END = """
sys.argv[0] = "contseg"
main.main()
"""
FIRST_BATCH = """
from contseg.engine import update

def first(self, batches, number, updates):
    next(batches)
    ready()

update.Updater.update = first
"""
FINISHED = """
from contseg.cli import progress

def said(self, text):
    if "nothing is left to train" in text:
        ready()

progress.TerminalReporter.message = said
"""
Seconds = tuple[float, float]
"""By the wall clock, and of the processor."""


def write_images(root: Path) -> None:
    """A folder of `IMAGES` photographs of 500 x 375 with masks of `CLASSES` classes."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    names = [f"{number:03d}" for number in range(IMAGES)]
    for number, name in enumerate(names):
        mask = np.zeros((375, 500), dtype=np.uint8)
        for place, one in enumerate((number, number + 7, number + 13)):
            mask[100 * place : 100 * place + 90, 50:450] = 1 + one % CLASSES
        write_palette_png(root / "masks" / f"{name}.png", mask, voc_palette())
        coarse = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(root / "images" / f"{name}.jpg", quality=92)
    (root / "train.txt").write_text("\n".join(names[:40]) + "\n")
    (root / "test.txt").write_text("\n".join(names[40:]) + "\n")
    (root / "classes.txt").write_text("\n".join(["background", *(f"class{n}" for n in range(1, CLASSES + 1))]) + "\n")


def contseg(*arguments: object) -> Seconds:
    """Seconds of a whole command."""
    started, before = time.time(), os.times()
    done = subprocess.run([sys.executable, "-m", "contseg", *map(str, arguments)], capture_output=True, text=True)
    after = os.times()
    if done.returncode:
        raise SystemExit(done.stderr)
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return time.time() - started, spent


def contseg_until(moment: str, *arguments: object) -> Seconds:
    """Seconds of a command until a moment at which `ready` is called."""
    started = time.time()
    program = [sys.executable, "-c", BEGINNING + moment + END]
    done = subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True)
    if "ready" not in done.stdout:
        raise SystemExit(done.stderr)
    at, spent = map(float, done.stdout.split("ready")[1].split()[:2])
    return at - started, spent


def median(measured: Callable[[], Seconds]) -> Seconds:
    """The medians after one run to warm up."""
    measured()
    walls, processors = zip(*(measured() for _ in range(REPEATS)), strict=True)
    return statistics.median(walls), statistics.median(processors)


def startup() -> dict[str, Seconds]:
    """`help`, `first batch` (ResNet-50 on a CPU, presence table cached) and `finished run` (11 steps, resumed)."""
    with tempfile.TemporaryDirectory() as place:
        root, run, wide = Path(place), Path(place) / "run", Path(place) / "wide"
        os.environ["CONTSEG_CACHE"] = str(root / "cache")
        write_images(root / "data")
        recipe = ["digits/mib_5-1", "data.dataset=folder", f"data.path={root / 'data'}", "data.options={}"]
        recipe += ["scenario.split=10-1", "training.batch=4", "--no-cache", "--out"]
        contseg("train", *recipe, run, *SMALL)
        return {
            "help": median(lambda: contseg("--help")),
            "first batch": median(lambda: contseg_until(FIRST_BATCH, "train", *recipe, wide, "--overwrite", *LARGE)),
            "finished run": median(lambda: contseg_until(FINISHED, "train", "--resume", run)),
        }


@cache
def measured() -> dict[str, Seconds]:
    """`startup`, once for its three rows."""
    return startup()


SECONDS = {
    "help-seconds": lambda: measured()["help"][0],
    "first-batch-seconds": lambda: measured()["first batch"][0],
    "finished-seconds": lambda: measured()["finished run"][0],
}
