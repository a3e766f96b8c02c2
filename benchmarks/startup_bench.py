"""Seconds from the start of a command to its help, to its first training batch, and to the end of a finished run.

    python -m benchmarks.startup_bench

The wall clock counts, as a user waits for it, and so does what other programs do: each figure is the median of several runs.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from contseg.data.classes import voc_palette
from contseg.data.files import write_palette_png

CLASSES, IMAGES, REPEATS = 20, 60, 5
SMALL = ["network.backbone=resnet18", "network.width=8", "network.head_width=16", "data.crop=32", "training.epochs=1"]

UNTIL_FIRST_BATCH = """
import os, sys, time
from contseg.cli import main
from contseg.engine import update

def first(self, batches, number, updates):
    next(batches)
    print("first batch", time.time(), flush=True)
    os._exit(0)

update.Updater.update = first
sys.argv[0] = "contseg"
main.main()
"""
"""The command `contseg`, which says when it has its first batch and ends."""


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


def command(*arguments: object, code: str = "") -> tuple[float, str]:
    """Seconds of a `contseg` command, and what it printed; with `code`, of a program that takes its arguments."""
    how = ["-c", code] if code else ["-m", "contseg"]
    started = time.time()
    done = subprocess.run([sys.executable, *how, *map(str, arguments)], capture_output=True, text=True)
    seconds = time.time() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    if code:
        return float(done.stdout.split("first batch")[1].split()[0]) - started, done.stdout
    return seconds, done.stdout


def median(measured: Callable[[], float], repeats: int = REPEATS) -> float:
    """The median after one run to warm up."""
    measured()
    return statistics.median(measured() for _ in range(repeats))


def startup() -> dict[str, float]:
    """`help`, `first batch` (ResNet-50, presence table cached) and `finished run` (11 steps, resumed), in seconds."""
    with tempfile.TemporaryDirectory() as place:
        root, folder = Path(place), Path(place) / "run"
        os.environ["CONTSEG_CACHE"] = str(root / "cache")
        write_images(root / "data")
        recipe = ["digits/mib_5-1", "data.dataset=folder", f"data.path={root / 'data'}", "data.options={}"]
        recipe += ["scenario.split=10-1", "training.batch=4", "--no-cache", "--out"]
        command("train", *recipe, folder, *SMALL)

        def first_batch() -> float:
            wide = ["network.backbone=resnet50", "network.width=64", "data.crop=512"]
            return command("train", *recipe, root / "wide", "--overwrite", *wide, code=UNTIL_FIRST_BATCH)[0]

        def finished() -> float:
            seconds, printed = command("train", "--resume", folder)
            assert "nothing is left to train" in printed
            return seconds

        return {
            "help": median(lambda: command("--help")[0]),
            "first batch": median(first_batch),
            "finished run": median(finished),
        }


if __name__ == "__main__":
    for name, seconds in startup().items():
        print(f"{name}: {seconds:.2f} s")
