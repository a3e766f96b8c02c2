"""What training samples and batches cost, as pairs of (ours, yardstick) for the table of benchmarks."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from contseg.data.files import read_image, read_mask
from contseg.data.open import open_dataset
from contseg.data.pipelines.augment import training_pipeline
from contseg.data.recoding import look_up
from contseg.engine.loading import Shard, StepBatches
from contseg.engine.options import TrainingOptions
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import Scenario

CROP, TIMES = 512, 20
Pair = tuple[Callable[[], object], Callable[[], object]]


def write_pair(image: Path, mask: Path, rng: np.random.Generator) -> None:
    """A JPEG of 500 x 375 pixels and a mask of 21 ids."""
    coarse = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
    coarse.resize((500, 375), Image.Resampling.BICUBIC).save(image, quality=92)
    ids = Image.fromarray(rng.integers(0, 21, (12, 16), dtype=np.uint8))
    ids.resize((500, 375), Image.Resampling.NEAREST).save(mask)


def training_sample() -> Pair:
    """JPEG + mask, scaled, cropped, flipped, label-mapped, against decoding the JPEG with Pillow; `TIMES` of both.

    One core: time it with `time.process_time`.
    """
    rng, folder = np.random.default_rng(0), tempfile.TemporaryDirectory()
    image_path, mask_path = Path(folder.name) / "a.jpg", Path(folder.name) / "a.png"
    write_pair(image_path, mask_path, rng)
    pipeline, lookup = training_pipeline("mib", CROP, 0.5), np.arange(65536).astype(np.uint8)

    def sample() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for _ in range(TIMES):
            _, layers = pipeline(read_image(image_path), {"mask": read_mask(mask_path)}, rng)
            look_up(lookup, layers["mask"])
        torch.set_num_threads(threads)

    def decode() -> None:
        assert folder  # the files are there as long as these functions
        for _ in range(TIMES):
            with Image.open(image_path) as image:
                image.convert("RGB").load()

    return sample, decode


def short_epochs() -> Pair:
    """Three epochs of five batches of four by one worker that stays, against one epoch of fifteen batches."""
    folder = tempfile.TemporaryDirectory()
    root, rng = Path(folder.name), np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part).mkdir()
    names = [f"{number:02d}" for number in range(24)]
    for name in names:
        write_pair(root / "images" / f"{name}.jpg", root / "masks" / f"{name}.png", rng)
    (root / "train.txt").write_text("\n".join(names[:20]))
    (root / "test.txt").write_text("\n".join(names[20:]))
    (root / "classes.txt").write_text("\n".join(["background", *map(str, range(1, 21))]))
    step = Scenario(open_dataset("folder", root), ScenarioOptions())[0]

    def read(epochs: int, accumulate: int) -> None:
        assert folder
        options = TrainingOptions(batch=4, epochs=epochs, accumulate=accumulate, workers=1)
        batches = StepBatches(step, training_pipeline("mib", CROP, 0.5), options, 0.0, torch.device("cpu"), Shard())
        for epoch in range(epochs):
            for _ in batches.epoch(epoch):
                pass
        batches.close()

    return lambda: read(3, 1), lambda: read(1, 15)


ROWS: dict[str, Callable[[], Pair]] = {
    "sample": training_sample,
    "short-epochs": short_epochs,
}
