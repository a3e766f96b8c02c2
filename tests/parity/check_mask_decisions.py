"""Golden files of decisions on masks: semantic maps, panoptic segments, undecided pixels."""

import torch

from contseg.models.mask_decision import COMFORMER, SIMCIS, OwnerRule, owner_classes, panoptic, semantic_bands
from contseg.models.output import MaskPrediction
from tests.parity.goldens import claims


def prediction_of(golden) -> tuple[MaskPrediction, tuple[int, int]]:
    """A batch, and the size of its masks."""
    class_logits, mask_logits = golden.tensor("in_class_logits"), golden.tensor("in_mask_logits")
    if class_logits.dim() == 2:
        class_logits, mask_logits = class_logits[None], mask_logits[None]
    return MaskPrediction(class_logits, mask_logits), (mask_logits.shape[2], mask_logits.shape[3])


def check_segments(golden, prediction, size, rule):
    """Panoptic ids from 1, and 0 where nothing is decided."""
    [found] = panoptic(prediction, size, golden.meta["things"], rule)
    golden.check("out_panoptic", (found.ids + 1).int())
    assert list(found.classes) == [segment["category_id"] for segment in golden.meta["segments"]]


@claims(r"m2f/decision")
def check_mask2former(golden):
    prediction, size = prediction_of(golden)
    golden.check("out_semantic", torch.cat([scores for _, _, scores in semantic_bands(prediction, size)], dim=1))
    meta = golden.meta
    check_segments(golden, prediction, size, OwnerRule(meta["object_mask_threshold"], meta["overlap_threshold"]))


@claims(r"eomt/panoptic_postprocess")
def check_eomt(golden):
    prediction, size = prediction_of(golden)
    things = set(range(golden.meta["classes"])) - set(golden.meta["stuff"])
    found = panoptic(prediction, size, things, OwnerRule(golden.meta["mask_thresh"], golden.meta["overlap_thresh"]))
    classes = torch.stack([one.class_map() for one in found])
    classes[classes < 0] = golden.meta["classes"]
    golden.check("out_panoptic", torch.stack([classes, torch.stack([one.ids for one in found])], dim=3))


@claims(r"comformer/decision")
def check_comformer(golden):
    prediction, size = prediction_of(golden)
    score, overlap = golden.meta["thresholds_second"]
    for name, rule in (("softmax", COMFORMER), ("sigmoid_thresholds", OwnerRule(score, overlap))):
        golden.check(f"out_prediction_{name}", (owner_classes(prediction, size, rule)[0] + 1).byte())


@claims(r"simcis/decision")
def check_simcis(golden):
    prediction, size = prediction_of(golden)
    meta = golden.meta
    assert (SIMCIS.score, SIMCIS.overlap, SIMCIS.temperature) == (
        meta["score_threshold_semantic"], meta["overlap_threshold"], meta["temperature"],
    )  # fmt: skip
    found = owner_classes(prediction, size, SIMCIS)[0]
    golden.check("out_semantic", found.masked_fill(found < 0, meta["undecided"]).byte())
    rule = OwnerRule(meta["score_threshold_panoptic"], meta["overlap_threshold"], temperature=meta["temperature"])
    check_segments(golden, prediction, size, rule)
