"""Golden files of UCD."""

import torch
from torch.nn import functional

from contseg.losses.weighted_contrast import ContrastSet, weighted_contrast
from contseg.methods.ucd_released import UCDReleased, in_8_bits
from contseg.models.segmenter import SegmenterOutput
from contseg.scenarios.batch import Batch
from tests.parity.goldens import claims, context_of, gradients


class Given(ContrastSet):
    """Weights of pairs as a golden states them."""

    def joint(self, rows, columns=slice(None)):
        return self.scores[rows][:, columns]


@claims(r"ucd/contrastive.*")
def check_contrast(golden):
    features = golden.tensor("in_anchors_unnormalised", grad=True)
    weights = golden.tensor("in_joint_probability") if "in_joint_probability" in golden.arrays else None
    among = Given(golden.tensor("in_contrast"), golden.tensor("in_contrast_labels"), weights)
    own, temperature = torch.arange(len(features)), golden.meta["temperature"]
    assert torch.equal(golden.tensor("in_anchor_labels"), among.labels[: len(own)])
    for loss_name, gradient_name, shifted in (
        ("out_loss", "grad_anchors_unnormalised", True),
        ("ref_consistent_loss", "ref_consistent_grad", False),
    ):
        for block in (1, 70, 1 << 20):  # anchor by anchor, three at a time, all at once
            total, count = weighted_contrast(features, among, own, temperature, shifted, block)
            golden.check(loss_name, total / count)
            golden.check(gradient_name, *gradients(total / count, features))


@claims(r"ucd/preprocess")
def check_step(golden):
    labels, old, new = golden.tensor("in_labels"), golden.meta["n_old"], golden.meta["n_new"]
    features = golden.tensor("in_features", grad=True)
    size = (features.shape[2], features.shape[3])
    golden.check("out_labels_small_int8", in_8_bits(labels, size)[:, None])
    context = context_of(old, new)
    annotated = torch.zeros(len(labels), old + new, dtype=torch.bool)
    annotated[:, old:] = True
    batch = Batch(torch.empty(0), labels, (), annotated)
    student = SegmenterOutput(torch.zeros(len(labels), old + new, *size), {"head": features})
    teacher = SegmenterOutput(golden.tensor("in_logits_old_small"), {"head": golden.tensor("in_features_old")})
    among, anchors, own = UCDReleased().positions(batch, student, teacher, context)
    golden.check("out_anchors", functional.normalize(anchors, dim=1))
    golden.check("out_anchor_labels", among.labels[own])
    golden.check("out_contrast", among.vectors)
    golden.check("out_contrast_labels", among.labels)
    golden.check("out_joint_probability", among.joint(own))
    loss = UCDReleased().contrasted(batch, student, teacher, context)
    golden.check("out_loss", loss)
    golden.check("grad_features", *gradients(loss, features))
