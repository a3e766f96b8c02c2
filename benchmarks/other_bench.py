"""Rows without a module of their own: losses and samples against plain operations, presence tables and plans."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.presence import ade_plan, presence_again, presence_table
from benchmarks.timing import Work
from contseg.data.files import read_image, read_mask
from contseg.data.pipelines.augment import training_pipeline
from contseg.data.recoding import look_up

OLD, SEEN, CROP = 101, 151, 512
SAMPLES = 20


def sample() -> tuple[Work, Work]:
    """JPEG + mask, scaled, cropped, flipped, label-mapped; and decoding the JPEG with Pillow."""
    rng, folder = np.random.default_rng(0), tempfile.TemporaryDirectory()
    image_path, mask_path = Path(folder.name) / "a.jpg", Path(folder.name) / "a.png"
    smooth = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
    smooth.resize((500, 375), Image.Resampling.BICUBIC).save(image_path, quality=92)
    blocks = Image.fromarray(rng.integers(0, 21, (12, 16), dtype=np.uint8))
    blocks.resize((500, 375), Image.Resampling.NEAREST).save(mask_path)
    pipeline, lookup = training_pipeline("mib", CROP, 0.5), np.arange(65536).astype(np.uint8)

    def ours() -> None:
        assert folder.name
        for _ in range(SAMPLES):
            _, layers = pipeline(read_image(image_path), {"mask": read_mask(mask_path)}, rng)
            look_up(lookup, layers["mask"])

    def decode() -> None:
        for _ in range(SAMPLES):
            with Image.open(image_path) as image:
                image.convert("RGB").load()

    return ours, decode


ROWS = {"sample": sample, "presence": presence_table}
SECONDS = {"presence-again-seconds": presence_again, "plan-seconds": ade_plan}
