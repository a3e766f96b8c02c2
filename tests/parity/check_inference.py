"""Golden files of evaluation as the toolbox of IDRNet has it: windows, looks, figures, learning rates."""

import torch
from torch.nn import functional

from contseg.evaluation.inference import InferenceOptions, ask
from tests.parity.goldens import claims


def stand_in(images):
    """The network that meta describes."""
    mean = images.mean((2, 3), keepdim=True).expand_as(images)
    return functional.avg_pool2d(torch.cat([images, 2 * mean], dim=1), 2, 2, ceil_mode=True)


@claims(r"idrnet/iso_inference.*")
def check_inference(golden):
    meta, image = golden.meta, golden.tensor("in_image")
    windows = {"crop": meta["cropsize"], "stride": meta["stride"]}
    looks = {"scales": [float(scale) for scale in meta["scales"]], "flip": meta["flip"]}
    for probabilities, average in enumerate(("logits", "scores")):
        said = ask(stand_in, image, InferenceOptions(mode="slide", average=average, **windows), scores=softmax)
        golden.check(f"out_slide_probs{probabilities}", said, 1e-6)
        for mode in ("whole", "slide"):
            options = InferenceOptions(mode=mode, average=average, **windows, **looks)
            said = ask(stand_in, image, options, tuple(meta["final_size"]), softmax, meta["flip_pairs"])
            golden.check(f"out_tta_{mode}_probs{probabilities}", said, 1e-6)


def softmax(logits):
    return logits.softmax(dim=1)
