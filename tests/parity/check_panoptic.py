"""Golden file of panoptic quality, as EoMT measures it."""

import numpy as np

from contseg.data.segments import CROWD, SegmentMap
from contseg.evaluation.panoptic import add_up
from tests.parity.goldens import claims


@claims(r"eomt/panoptic_quality")
def check_quality(golden):
    meta, crowds = golden.meta, golden.arrays["in_crowd"]
    things = np.isin(np.arange(meta["classes"]), meta["things"])
    pairs = []
    for found, truth, crowd in zip(golden.arrays["in_predictions"], golden.arrays["in_targets"], crowds, strict=True):
        numbers = truth[..., 1].astype(np.int64)
        numbers = np.where((numbers >= 0) & crowd[numbers], CROWD, numbers)
        pairs.append((SegmentMap(found[..., 0], found[..., 1]), SegmentMap(truth[..., 0], numbers)))
    counts = add_up(pairs, things)
    order = meta["order"]
    for name, values in (
        ("true_positives", counts.true_positives),
        ("false_positives", counts.false_positives),
        ("false_negatives", counts.false_negatives),
    ):
        golden.check(f"out_{name}", values[order].astype(np.int32))
    golden.check("out_iou_sum", counts.iou[order], 1e-7)  # added up in single precision there
    golden.check("out_pq_sq_rq", np.stack(counts.quality("zero"), axis=1)[order].astype(np.float32), 1e-6)
