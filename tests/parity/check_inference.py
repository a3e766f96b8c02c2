"""Golden files of evaluation as the toolbox of IDRNet has it: windows, looks, figures, learning rates."""

import numpy as np
import torch
from torch.nn import functional

from contseg.engine.options import TrainingOptions
from contseg.engine.schedule import lr_multiple
from contseg.evaluation.confusion import confusion_matrix
from contseg.evaluation.inference import InferenceOptions, infer
from contseg.evaluation.metrics import class_accuracy, class_fscore, class_iou, class_precision, overall_accuracy
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
        said = infer(stand_in, image, InferenceOptions(mode="slide", average=average, **windows), scores=softmax)
        golden.check(f"out_slide_probs{probabilities}", said, 1e-6)
        for mode in ("whole", "slide"):
            options = InferenceOptions(mode=mode, average=average, **windows, **looks)
            said = infer(stand_in, image, options, tuple(meta["final_size"]), softmax, meta["flip_pairs"])
            golden.check(f"out_tta_{mode}_probs{probabilities}", said, 1e-6)


def softmax(logits):
    return logits.softmax(dim=1)


@claims(r"idrnet/iso_metric.*")
def check_figures(golden):
    labels, classes = golden.tensor("in_targets"), golden.meta["num_classes"]
    labels[labels == golden.meta["ignore"]] = 255
    counts = confusion_matrix(labels, golden.tensor("in_predictions"), classes).numpy()
    iou, fscore = class_iou(counts, absent="union"), class_fscore(counts, absent="union")
    recall = class_accuracy(counts)
    found = {"iou": iou, "accuracy": recall, "recall": recall, "precision": class_precision(counts)}
    found |= {"fscore": fscore, "dice": fscore}
    for name, values in found.items():
        golden.check(f"out_{name}", np.nan_to_num(values, nan=-1), 1e-6)
    for name, values in (("miou", iou), ("mdice", fscore), ("mfscore", fscore)):
        golden.check(f"out_{name}", np.nanmean(values, keepdims=True), 1e-6)
    golden.check("out_all_accuracy", np.array([overall_accuracy(counts)]), 1e-6)


@claims(r"idrnet/iso_schedule.*")
def check_learning_rates(golden):
    swin, sgd = golden.meta["swin"], golden.meta["sgd"]
    warm = {"schedule": "warm-poly", "warmup_updates": swin["warmup"]["iters"], "warmup_ratio": swin["warmup"]["ratio"]}
    for name, about, options in (("sgd", sgd, {"schedule": "poly"}), ("swin", swin, warm)):
        found = TrainingOptions(lr=about["lr"], power=about["power"], floor=about["min_lr"] / about["lr"], **options)
        updates = about["max_iters"]
        rates = [found.lr * lr_multiple(found, update, updates) for update in range(updates)]
        golden.check(f"out_lr_{name}", np.array(rates), 1e-12)
