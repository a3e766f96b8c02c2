"""Golden file of undecided pixels: misses here, dropped in the released code of SimCIS."""

import numpy as np
import torch

from contseg.data.classes import UNDECIDED
from contseg.evaluation.confusion import confusion_matrix, ignore_undecided
from contseg.evaluation.metrics import class_iou
from tests.parity.goldens import claims


@claims(r"simcis/metrics")
def check_metrics(golden):
    meta = golden.meta
    seen, last = meta["base"] + (meta["task"] - 1) * meta["increment"], meta["increment"]
    labels, predictions = golden.tensor("in_ground_truth").long(), golden.tensor("in_predictions").long()
    predictions[predictions == meta["undecided"]] = UNDECIDED
    places = np.arange(seen)
    groups = {
        "old": places < meta["base"],
        "new": places >= meta["base"],
        "past": places < seen - last,
        "current": places >= seen - last,
        "all": places >= 0,
    }

    def means(confusion) -> np.ndarray:
        iou = class_iou(confusion.numpy())
        return np.array([100 * np.nanmean(iou[groups[name]]) for name in meta["groups"]])

    whole = confusion_matrix(labels, predictions, seen, undecided=True)
    golden.check("ref_miou_undecided_is_miss", means(whole))
    theirs = torch.from_numpy(golden.arrays["out_confusion"]).T  # rows are predictions
    assert torch.equal(whole[:, :seen], theirs[:seen, :seen])
    assert torch.equal(whole[:, seen], theirs[:seen, meta["capacity"]])
    dropped = confusion_matrix(ignore_undecided(labels, predictions), predictions, seen, undecided=True)
    golden.check("out_miou_released", means(dropped), 1e-6)  # theirs is float32
