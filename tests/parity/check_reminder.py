"""Golden files of REMINDER."""

from types import SimpleNamespace

import torch

from contseg.losses.similarity import cosines, similarity_distillation, similarity_weights, upsampled_sums
from contseg.methods.reminder import means
from contseg.methods.reminder_released import REMINDERReleased
from contseg.models.segmenter import SegmenterOutput
from contseg.ranks import Ranks
from contseg.scenarios.batch import Batch
from tests.parity.goldens import claims, gradients


@claims(r"reminder/csw_kd_delta\d")
def check_distillation(golden):
    meta, labels = golden.meta, golden.tensor("in_labels").long()
    old, new = meta["n_old"], meta["n_new"]
    stored, logits = golden.tensor("in_prototypes"), golden.tensor("in_logits", grad=True)
    own = means(*upsampled_sums(golden.tensor("in_features"), labels, old, new))
    golden.check("out_batch_prototypes", torch.cat([torch.zeros_like(stored), own]))
    weights = similarity_weights(own, stored, meta["delta"])
    rows = labels[(labels >= old) & (labels < 255)] - old
    golden.check("out_cosine", cosines(own, stored)[rows])
    golden.check("out_weights", weights[rows])
    total, pixels = similarity_distillation(logits, golden.tensor("in_logits_old"), labels, weights, meta["temperature"])
    assert pixels == len(rows)
    golden.check("out_loss", total / pixels)
    golden.check("grad_logits", *gradients(total / pixels, logits))
    nothing, none = similarity_distillation(logits, golden.tensor("in_logits_old"), labels * 0, weights)
    assert (nothing, none) == (0, 0)  # theirs is not a number
    assert not gradients(nothing, logits)[0].any()


@claims(r"reminder/prototypes_step\d")
def check_prototypes(golden):
    features, labels = golden.tensor("in_features"), golden.tensor("in_labels").long()
    count = len(golden.arrays["out_final"])
    old = len(golden.arrays["in_old_prototypes"]) if "in_old_prototypes" in golden.arrays else 0
    batches = [
        (Batch(torch.empty(0), one, (), torch.empty(0)), SegmenterOutput(torch.empty(0), {"head": maps}))
        for maps, one in zip(features, labels, strict=True)
    ]
    context = SimpleNamespace(look=lambda taps: iter(batches), ranks=Ranks())
    found = REMINDERReleased().mean_features(context, old, count - old)
    before = [golden.tensor("in_old_prototypes")] if old else []
    golden.check("out_final", torch.cat([*before, found]))
    golden.check("out_running", torch.cat([golden.tensor("out_running")[:old] * 0, found]))
