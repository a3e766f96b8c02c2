"""Golden files of STAR."""

import torch

from contseg.losses.one_vs_rest import decided
from contseg.losses.replay import direction_sums, fake_features, masked_distance, prototype_contrast, sampled
from contseg.methods.feature_statistics import ClassSums, replay_sizes
from contseg.methods.star_released import STARReleased
from contseg.models.foreground import ForegroundClassifier
from contseg.models.layers import resize
from contseg.models.segmenter import SegmenterOutput
from contseg.scenarios.batch import Batch
from tests.parity.check_dkd import segmenter_with
from tests.parity.goldens import claims, context_of, gradients


@claims(r"star/statistics_step.*")
def check_statistics(golden):
    old, new = golden.meta["n_old_foreground"], golden.meta["n_new"]
    sums = ClassSums(first=old + 1, count=new)
    background = 0
    for features, labels in zip(golden.tensor("in_features"), golden.tensor("in_labels").long(), strict=True):
        sums.add(features, labels)
        background += int((sampled(labels, tuple(features.shape[2:])) == 0).sum())
    before = {name: golden.tensor(f"in_prev_{name}") if old else torch.zeros(0) for name in ("prototypes", "norm", "noise")}
    prototypes = torch.cat([before["prototypes"], sums.prototypes]) if old else sums.prototypes
    norms = torch.cat([before["norm"], sums.norms], dim=1) if old else sums.norms
    golden.check("out_numbers", torch.tensor([background, *sums.numbers.tolist()]).double())
    golden.check("out_prototypes", prototypes)
    golden.check("out_norm_mean_std", norms)
    for name, noise in (
        ("ref_noise_own_prototype", sums.noise()),
        ("out_noise", STARReleased().noise(sums, prototypes)),
    ):
        golden.check(name, torch.cat([before["noise"], noise]) if old else noise)


@claims(r"star/replay_counts_.*")
def check_replay_sizes(golden):
    meta, logits = golden.meta, golden.tensor("in_logits_old_sampled")
    labels, before = golden.tensor("in_labels_sampled").long(), golden.tensor("in_prev_numbers")
    said = decided(logits.flatten(0, 1), STARReleased.threshold).view_as(labels)
    predicted = said[labels == 0].bincount(minlength=len(before)).double()
    golden.check("out_predicted_numbers", predicted)
    setting = {"overlap": "overlapped", "disjoint": "disjoint"}[meta["setting"]]
    sizes = replay_sizes(before, predicted, meta["n_new"], meta["iterations"], setting)
    golden.check("out_per_iteration", sizes.counts.int())
    golden.check("out_extra_background_ratio", torch.tensor(sizes.background, dtype=torch.float64))
    golden.check("out_numbers", torch.cat([sizes.numbers, golden.tensor("in_numbers")[1:]]))


class Drawn(STARReleased):
    """Uses the recorded draws."""

    def __init__(self, golden, **options):
        super().__init__(**options)
        object.__setattr__(self, "golden", golden)

    def draw(self, context):
        direction, length = (self.golden.tensor(f"in_draw_{name}")[0, :, :, 0].T for name in ("direction", "norm"))
        known = (self.golden.tensor(f"in_{name}") for name in ("prototypes", "noise", "norm_mean_std", "counts"))
        prototypes, noise, norms, counts = known
        return fake_features(prototypes, noise, norms, counts.long(), direction, length)


@claims(r"star/mbce_replay_.*")
def check_replay(golden):
    meta, labels = golden.meta, golden.tensor("in_labels").long()
    old, new = meta["n_old_foreground"], meta["n_new"]
    features = golden.tensor("in_features", grad=True)
    segmenter = segmenter_with(ForegroundClassifier(features.shape[1], [old + 1, new]).double())
    newest = segmenter.classifier.steps[-1]
    with torch.no_grad():
        newest.weight.copy_(golden.tensor("in_weight"))
        newest.bias.copy_(golden.tensor("in_bias"))
    grid = golden.tensor("in_logits_old_grid").repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    teacher = SegmenterOutput(torch.cat([torch.zeros_like(grid[:, :1]), grid], dim=1))
    student = SegmenterOutput(segmenter.classifier(features), {"head": features})
    annotated = torch.zeros(len(labels), 1 + old + new, dtype=torch.bool)
    annotated[:, old + 1 :] = True
    batch = Batch(torch.empty(0), labels, (), annotated)
    method, context = Drawn(golden, positive_weight=meta["pos_weight"]), context_of(1 + old, new, segmenter)
    method.state.update(
        prototypes=golden.tensor("in_prototypes"), background=torch.tensor(meta["extra_bg_ratio"], dtype=torch.float64)
    )

    said = method.decision(teacher, batch)
    golden.check("out_teacher_prediction", said.byte())
    golden.check("out_pseudo_region", ((labels == 0) & (said > 0))[:, None])
    background = (labels == 0) & (said == 0)
    region = sampled(background, tuple(features.shape[2:]))
    golden.check("out_background_region_small", region)
    drawn = method.draw(context)
    golden.check("out_fake_features", drawn.T[None, :, :, None])
    softplus = torch.nn.functional.softplus
    each = softplus(segmenter.classifier.of_vectors(drawn, slice(-1, None))).mean(dim=0)
    golden.check("out_loss_fake", each)
    behind = softplus(student.logits[:, 1 + old :]).permute(0, 2, 3, 1)[region].mean(dim=0)
    golden.check("out_loss_background", behind)
    supervised = method.supervise(student, batch, context)
    torch.testing.assert_close(supervised, golden.tensor("out_loss_original").sum(), rtol=1e-9, atol=0)
    positions = region.numel()
    golden.check("out_weight_fake", torch.tensor(len(drawn) / positions, dtype=torch.float64))
    weight = meta["extra_bg_ratio"] * float(region.sum()) / positions
    golden.check("out_weight_background", torch.tensor(weight, dtype=torch.float64))
    total = method.replayed(batch, student, background, context)
    golden.check("out_total", total)
    torch.testing.assert_close(total, golden.tensor("out_loss_per_class").sum(), rtol=1e-9, atol=0)
    old_weight = segmenter.classifier.steps[0].weight
    found = gradients(total, features, newest.weight, newest.bias, old_weight)
    for name, gradient in zip(("features", "weight", "bias", "old_classifier_weight"), found, strict=True):
        golden.check(f"grad_{name}", gradient)


@claims(r"star/pkd")
def check_features(golden):
    features = golden.tensor("in_features", grad=True)
    mask = resize(golden.tensor("in_mask").double(), tuple(features.shape[2:]))
    golden.check("out_mask_small", mask)
    loss = masked_distance(features, golden.tensor("in_features_old"), mask[:, 0])
    golden.check("out_loss", loss)
    golden.check("grad_features", *gradients(loss, features))
    nothing = masked_distance(features, golden.tensor("in_features_old"), torch.zeros_like(mask[:, 0]))
    assert nothing == 0  # theirs is not a number
    assert not gradients(nothing, features)[0].any()


@claims(r"star/cont")
def check_contrast(golden):
    features, labels = golden.tensor("in_features", grad=True), golden.tensor("in_labels").long()
    old, new = golden.meta["n_old_foreground"], golden.meta["n_new"]
    classes = torch.arange(old + 1, old + new + 1)
    maps = resize((labels[:, None] == classes[:, None, None]).double(), tuple(features.shape[2:]))
    loss = prototype_contrast(direction_sums(features, maps), golden.tensor("in_old_prototypes"))
    golden.check("out_loss", loss)
    golden.check("grad_features", *gradients(loss, features))
