"""Golden files of EoMT's network: predictions and gradients, windows, schedules, learning rates."""

import numpy as np
import torch

from contseg.engine.options import TrainingOptions
from contseg.engine.schedule import learning_rate
from contseg.evaluation.along import resized, size_along, windows
from contseg.evaluation.inference import InferenceOptions, infer, infer_in_bands
from contseg.models.eomt.annealing import mask_probability
from tests.parity.goldens import claims


@claims(r"eomt/windows")
def check_windows(golden):
    crops, side = golden.tensor("in_crop_logits"), golden.meta["img_size"][0]
    options = InferenceOptions(mode="along", crop=side, windows=2)
    used = 0
    for number, about in enumerate(golden.meta["images"]):
        height, width = about["size"]
        assert list(size_along(height, width, side)) == about["resized"]
        found = windows(*about["resized"])
        assert [[part.start, part.stop] for part in (max(one, key=lambda side: side.stop) for one in found)][1:] == about[
            "windows"
        ][1:]
        mine = iter(crops[used : used + len(found)].split(1))

        def network(images, mine=mine):
            return torch.cat([next(mine) for _ in images])

        used += len(found)
        name, kept = f"in_image_{number}", {}
        if name in golden.arrays:
            image = golden.tensor(name)[None]
            kept["first"] = resized(image, side)[0, :, : found[0][0].stop, : found[0][1].stop]
            golden.check(f"out_crop_{number}", kept["first"])
        images = torch.zeros(1, 3, height, width, dtype=torch.uint8)
        golden.check(f"out_logits_{number}", infer(network, images, options)[0], 1e-6)
        again = iter(crops[used - len(found) : used].split(1))
        bands = infer_in_bands(lambda images, again=again: torch.cat([next(again) for _ in images]), images, options)
        golden.check(f"out_logits_{number}", torch.cat(list(bands), dim=2)[0], 1e-6)
    assert used == len(crops)


@claims(r"eomt/schedules")
def check_schedules(golden):
    meta = golden.meta
    first, second = meta["warmup"]
    options = TrainingOptions(
        lr=1.0, schedule="warm-twice", power=meta["power"], warmup_updates=first, backbone_warmup_updates=second
    )
    steps = range(meta["total"] + 1)
    rates = [
        [
            learning_rate(options, 0, step, meta["total"], rate, late=group < meta["backbone_groups"])
            for group, rate in enumerate(meta["base_lr"])
        ]
        for step in steps
    ]
    golden.check("out_lr", np.array(rates))
    spans = list(zip(meta["annealing_start"], meta["annealing_end"], strict=True))
    golden.check("out_mask_probability", np.array([[mask_probability(step, *span) for span in spans] for step in steps]))
