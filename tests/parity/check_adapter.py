"""Golden files of Adapter."""

from types import SimpleNamespace

import torch

from contseg.losses.confidence import top_two
from contseg.losses.replay import direction_sums, fake_features, masked_distance, prototype_contrast
from contseg.losses.uncertainty import uncertainty, unsure
from contseg.methods.adapter_released import AdapterReleased
from contseg.models.foreground import ForegroundClassifier
from contseg.models.layers import resize
from contseg.models.segmenter import SegmenterOutput
from contseg.scenarios.batch import Batch
from tests.parity.check_dkd import segmenter_with
from tests.parity.goldens import claims, context_of, gradients

SETTINGS = {"overlap": "overlapped", "disjoint": "disjoint"}


class Drawn(AdapterReleased):
    """Uses the recorded draws."""

    def __init__(self, golden, **options):
        super().__init__(**options)
        object.__setattr__(self, "golden", golden)

    def draw(self, context):
        direction, length = (self.golden.tensor(f"in_draw_{name}")[0, :, :, 0].T for name in ("direction", "norm"))
        state = self.state
        return fake_features(state["prototypes"], state["noise"], state["norms"], state["counts"], direction, length)


def segmenter_of(golden, *parts):
    widths = [len(golden.arrays[f"in_{part}_bias"]) for part in parts]
    depth = golden.arrays[f"in_{parts[0]}_weight"].shape[1]
    classifier = ForegroundClassifier(depth, [widths[0] + 1, *widths[1:]]).double()
    with torch.no_grad():
        for step, part in zip(classifier.steps, parts, strict=True):
            step.weight.copy_(golden.tensor(f"in_{part}_weight")[:, :, None, None])
            step.bias.copy_(golden.tensor(f"in_{part}_bias"))
    return segmenter_with(classifier)


def output_of(segmenter, features):
    return SegmenterOutput(segmenter.classifier(features), {"head": features})


def lesson(golden, ours: str, theirs: str):
    """Context, method, and batches of the recorded features of student and teacher."""
    meta, labels = golden.meta, golden.tensor("in_labels")
    old, new = meta["n_old_foreground"] + 1, meta["n_new"]
    student, teacher = segmenter_of(golden, "old", "new"), segmenter_of(golden, "teacher")
    annotated = torch.zeros(labels.shape[1], old + new, dtype=torch.bool)
    annotated[:, old:] = True
    batches = [Batch(torch.empty(0), each, (str(number),), annotated) for number, each in enumerate(labels)]
    context = context_of(old, new, student)
    context.loader, context.updates = batches, meta.get("iterations", 1)

    def features(name, batch):
        return golden.tensor(name)[int(batch.names[0])]

    context.predict_teacher = lambda batch: output_of(teacher, features(theirs, batch))
    context.predict_student = lambda batch, taps: output_of(student, features(ours, batch))
    return context, batches


@claims(r"adapter/(iteration|replay_counts)_.*")
def check_iteration(golden):
    meta = golden.meta
    context, batches = lesson(golden, "in_features_all", "in_features_old_all")
    every, setting = meta["dataset"] == "voc", SETTINGS[meta["setting"]]
    method = Drawn(golden, positive_weight=float(meta["pos_weight"]), setting=setting, every_class=every)
    method.state["numbers"] = golden.tensor("in_prev_numbers")
    predicted = torch.zeros(len(golden.arrays["in_prev_numbers"]), dtype=torch.float64)
    context.step = SimpleNamespace(
        **{name: getattr(context.step, name) for name in ("old_count", "new_count", "seen_count")}
    )
    stated = {name: golden.tensor(f"in_{name}") for name in ("prototypes", "noise") if f"in_{name}" in golden.arrays}
    seen = []
    method_sizes = type(method).sizes

    def watched(self, predicted, added, context):
        seen.append(predicted)
        return method_sizes(self, predicted, float(golden.tensor("in_new_numbers").sum()), context)

    object.__setattr__(method, "sizes", watched.__get__(method))
    object.__setattr__(method, "require_statistics", lambda step: None)
    method.state.update({"prototypes": predicted, "noise": predicted} | stated)
    method.before_step(context)
    golden.check("out_predicted_numbers", seen[0])
    golden.check("out_per_iteration", method.state["counts"].int())
    golden.check("out_extra_background_ratio", method.state["background"])
    golden.check("out_numbers", torch.cat([method.state["later"], golden.tensor("in_new_numbers")]))
    if "out_loss" not in golden.arrays:
        return
    method.state["norms"] = golden.tensor("in_norm_mean_std")
    method.state["background"] = golden.tensor("out_extra_background_ratio")
    features = golden.tensor("in_features_all")[0].requires_grad_()
    student = output_of(context.student, features)
    terms = method.losses(batches[0], student, context.predict_teacher(batches[0]), context)
    names = {"mbce": "binary", "pkd": "features", "cont": "contrast", "uncertainty": "uncertainty"}
    for name, term in names.items():
        golden.check(f"out_loss_{name}", terms[term])
    total = sum(terms.values())
    golden.check("out_loss", total)
    golden.check("grad_features", *gradients(total, features))
    for step, part in zip(context.student.classifier.steps, ("old", "new"), strict=True):
        weight, bias = gradients(total, step.weight, step.bias)
        golden.check(f"grad_{part}_weight", weight[:, :, 0, 0])
        golden.check(f"grad_{part}_bias", bias)


@claims(r"adapter/uncertainty")
def check_uncertainty(golden):
    logits, labels = golden.tensor("in_logits", grad=True), golden.tensor("in_labels")
    golden.check("out_certainty", top_two(logits.sigmoid())[2])
    golden.check("out_unsure", unsure(logits.sigmoid(), labels))
    loss = uncertainty(logits, labels).mean()
    golden.check("out_loss", loss)
    golden.check("grad_logits", *gradients(loss, logits))


@claims(r"adapter/pkd")
def check_features(golden):
    features, before = golden.tensor("in_features", grad=True), golden.tensor("in_features_old")
    mask = resize(golden.tensor("in_mask").double(), tuple(features.shape[2:]))[:, 0]
    loss = masked_distance(features, before, mask, epsilon=AdapterReleased.epsilon)
    golden.check("out_loss", loss)
    golden.check("grad_features", *gradients(loss, features))
    golden.check("out_loss_empty_mask", masked_distance(features, before, 0 * mask, epsilon=AdapterReleased.epsilon))


@claims(r"adapter/cont")
def check_contrast(golden):
    features, labels = golden.tensor("in_features", grad=True), golden.tensor("in_labels")
    old, new = golden.meta["n_old_foreground"], golden.meta["n_new"]
    classes = torch.arange(old + 1, old + new + 1)
    maps = resize((labels[:, None] == classes[:, None, None]).double(), tuple(features.shape[2:]))
    loss = prototype_contrast(direction_sums(features, maps), golden.tensor("in_prototypes"))
    golden.check("out_loss", loss)
    golden.check("grad_features", *gradients(loss, features))


@claims(r"adapter/drift_compensation.*")
def check_compensation(golden):
    context, _ = lesson(golden, "in_features_new", "in_features_old")
    method = AdapterReleased(compensation=True, sure=golden.meta["threshold"])
    for name in ("prototypes", "noise"):
        method.state[f"first_{name}"] = golden.tensor(f"in_{name}")
    method.state["current"] = golden.tensor("in_current_numbers")
    method.compensate(context)
    golden.check("out_prototypes", method.state["prototypes"])
    golden.check("out_noise", method.state["noise"])
    numbers = torch.cat([method.state["current"], golden.tensor("in_new_numbers")])
    golden.check("out_current_numbers", numbers)
