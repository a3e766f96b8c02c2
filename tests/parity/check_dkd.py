"""Golden files of DKD."""

import numpy as np
import torch

from contseg.data.classes import IGNORE
from contseg.evaluation.confusion import confusion_matrix
from contseg.evaluation.metrics import class_accuracy, class_iou, harmonic, overall_accuracy
from contseg.interop.one_vs_rest import convert_one_vs_rest
from contseg.losses.one_vs_rest import binary_cross_entropy, decided, decomposed, one_vs_rest
from contseg.methods.dkd import weights_of
from contseg.methods.dkd_released import DKDReleased
from contseg.models.foreground import ForegroundClassifier
from contseg.models.layers import resize
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.scenarios.batch import Batch
from tests.parity.check_networks import floats
from tests.parity.goldens import claims, context_of, gradients, network_image, network_state


def classifier_of(golden, prefix: str) -> ForegroundClassifier:
    """The classifiers of a golden; its `cls.0` is the auxiliary one."""
    state = {
        name.removeprefix(f"{prefix}cls."): golden.tensor(name) for name in golden.arrays if name.startswith(f"{prefix}cls.")
    }
    widths = [len(state[f"{step}.bias"]) for step in range(1, len(state) // 2)]
    classifier = ForegroundClassifier(state["0.weight"].shape[1], [widths[0] + 1, *widths[1:]], auxiliary=True).double()
    classifier.load_state_dict({ours(name): value for name, value in state.items()})
    return classifier


def ours(name: str) -> str:
    step, kind = name.split(".")
    return f"auxiliary.{kind}" if step == "0" else f"steps.{int(step) - 1}.{kind}"


def segmenter_with(classifier: ForegroundClassifier) -> Segmenter:
    options = NetworkOptions(
        backbone={"name": "resnet18", "width": 4}, head={"name": "deeplabv3-dkd", "width": 8}, background="auxiliary"
    )
    segmenter = Segmenter(options, [2])
    segmenter.classifier = classifier
    return segmenter


@claims(r"dkd/step_pos_weight.*")
def check_step(golden):
    meta, labels = golden.meta, golden.tensor("in_labels")
    size = (labels.shape[1], labels.shape[2])
    old, new = meta["n_old_foreground"] + 1, meta["n_new"]
    student, teacher = (segmenter_with(classifier_of(golden, f"in_{who}.")) for who in ("student", "teacher"))
    features, features_old = golden.tensor("in_features", grad=True), golden.tensor("in_features_old")
    context = context_of(old, new, student)
    context.teacher = teacher
    output = SegmenterOutput(
        student.classifier(features), {"head": features, "auxiliary": student.classifier.auxiliary_logits(features)}
    )
    with torch.no_grad():
        said = SegmenterOutput(teacher.classifier(features_old), {"head": features_old})
    for who, one, map_BCHW, net in (("", output, features, student), ("_old", said, features_old, teacher)):
        logits = one.logits_at(size).clone()
        logits[:, :1] = resize(net.classifier.auxiliary_logits(map_BCHW), size)
        golden.check(f"out_logits{who}", logits)
        count = one.logits.shape[1] - 1
        for name, value in zip(("positive", "negative"), decomposed(map_BCHW, weights_of(net, count)), strict=True):
            golden.check(f"out_{name}{who}", value)
    annotated = torch.zeros(len(labels), old + new, dtype=torch.bool)
    annotated[:, old:] = True
    batch = Batch(torch.empty(0), labels, (), annotated)
    weights = meta["weights"]
    method = DKDReleased(
        positive_weight=meta["pos_weight"],
        distillation=weights["kd"],
        positive=weights["dkd_pos"],
        negative=weights["dkd_neg"],
        auxiliary=weights["ac"],
    )
    terms = method.losses(batch, output, said, context)
    parts = {"mbce": "binary", "kd": "distillation", "dkd_pos": "positive", "dkd_neg": "negative", "ac": "auxiliary"}
    names = {"dkd_pos": "dkd_positive_per_class", "dkd_neg": "dkd_negative_per_class", "ac": "ac"}
    for short, term in parts.items():
        expected = golden.arrays[f"out_{names.get(short, f'{short}_per_class')}"].sum() * weights[short]
        np.testing.assert_allclose(terms[term].item(), expected, rtol=1e-10)
    total = sum(terms.values())
    golden.check("out_total", total)
    for sign in ("positive", "negative"):
        (gradient,) = gradients(terms[sign] / weights[f"dkd_{sign[:3]}"], features)
        golden.check(f"grad_features_dkd_{sign}", gradient)
    golden.check("grad_features", *gradients(total, features))
    for name in [name for name in golden.arrays if name.startswith("grad_cls.")]:
        parameter = student.classifier.get_parameter(ours(name.removeprefix("grad_cls.")))
        golden.check(name, *gradients(total, parameter))


@claims(r"dkd/init_new_classes")
def check_start(golden):
    before, widths = classifier_of(golden, "in_"), golden.meta["classes"]
    classifier = ForegroundClassifier(10, [widths[0] + 1, *widths[1:-1]], auxiliary=True).double()
    kept = classifier.state_dict()
    classifier.load_state_dict({name: value for name, value in before.state_dict().items() if name in kept})
    classifier.grow(widths[-1], "auxiliary")
    for name in [name for name in golden.arrays if name.startswith("out_cls.")]:
        golden.check(name, classifier.get_parameter(ours(name.removeprefix("out_cls."))))


@claims(r"dkd/mbce_map")
def check_binary_map(golden):
    logits = golden.tensor("in_logits", grad=True)
    loss = one_vs_rest(logits, golden.tensor("in_labels"), golden.meta["n_old_with_background"])
    golden.check("out_map", loss)
    golden.check("grad_logits", *gradients(loss.sum(), logits))


@claims(r"dkd/kd_bce_map")
def check_distillation_map(golden):
    logits = golden.tensor("in_logits", grad=True)
    loss = binary_cross_entropy(logits, golden.tensor("in_target_probabilities"))
    golden.check("out_map", loss)
    golden.check("grad_logits", *gradients(loss.sum(), logits))


@claims(r"dkd/bce(_with_background|_pos_weight)?")
def check_all_classes(golden):
    logits, labels = golden.tensor("in_logits", grad=True), golden.tensor("in_labels")
    if "with_background" not in golden.path.name:
        labels = labels.where(labels > 0, IGNORE)
    weight = golden.tensor("in_pos_weight") if "in_pos_weight" in golden.arrays else 1.0
    loss = one_vs_rest(logits, labels, 0, weight).mean()
    golden.check("out_loss", loss)
    golden.check("grad_logits", *gradients(loss, logits))


@claims(r"dkd/bce_soft_old")
def check_soft_targets(golden):
    """A variant that training does not use: the teacher's scores are targets, except for classes labelled in the batch."""
    logits, labels, said = (golden.tensor(name) for name in ("in_logits", "in_labels", "in_logits_old"))
    logits.requires_grad_()
    targets = torch.zeros_like(logits.detach())
    targets[:, 1 : said.shape[1]] = said[:, 1:].sigmoid()
    for present in labels.unique().tolist():
        if present not in (0, IGNORE):
            targets[:, present] = (labels == present).to(targets)
    loss = binary_cross_entropy(logits, targets).mean()
    golden.check("out_loss", loss)
    golden.check("grad_logits", *gradients(loss, logits))


@claims(r"dkd/decision_and_metrics")
def check_decision(golden):
    logits, meta = golden.tensor("in_logits"), golden.meta
    prediction = decided(logits[:, 1:])
    golden.check("out_prediction", prediction)
    with_constant = torch.cat([torch.zeros_like(logits[:, :1]), logits[:, 1:]], dim=1)
    scores = Segmenter.scores(segmenter_with(ForegroundClassifier(4, [3])), with_constant)
    golden.check("out_prediction", scores.argmax(dim=1))  # what a constant 0 for background decides
    counts = confusion_matrix(golden.tensor("in_ground_truth"), prediction, meta["classes"]).numpy()
    golden.check("out_confusion", counts.astype(float))
    iou = np.nan_to_num(class_iou(counts, -1e-6))  # the released mean counts absent classes as 0
    golden.check("out_iou_per_class", 100 * iou, 1e-7)
    old, new = iou[meta["old"]].mean(), iou[meta["new"]].mean()
    for name, value in (("", iou.mean()), ("_old", old), ("_new", new), ("_harmonic", harmonic(old, new))):
        golden.check(f"out_miou{name}", np.array(100 * value), 1e-7)
    golden.check("out_pixel_accuracy", np.array(100 * overall_accuracy(counts)), 1e-7)
    golden.check("out_class_accuracy", np.array(100 * np.nan_to_num(class_accuracy(counts)).mean()), 1e-6)


@claims(r"(dkd|star)/r101_.*")
def check_network(golden):
    segmenter, widths = convert_one_vs_rest(floats(network_state(golden)), golden.family)
    first, *others = golden.meta["classes"]
    assert widths == [first + 1, *others]
    image, auxiliary = network_image(golden), ("auxiliary",) * (golden.family == "dkd")
    with torch.no_grad():
        output = segmenter(image, taps=("stage4", "head", *auxiliary))
        features = output.features["head"]
        parts = decomposed(features, weights_of(segmenter, sum(widths) - 1))
    leading = output.features["auxiliary"] if auxiliary else output.logits[:, :0]
    logits = torch.cat([leading, output.logits[:, 1:]], dim=1)
    assert not output.logits[:, 0].any()
    golden.check_close("out_logits", logits, 1e-4)
    golden.check_close("ref64_logits", logits.double(), 1e-4)
    values = {
        "body": segmenter.backbone.activate(output.features["stage4"]),
        "pre_logits": features,
        "logits_up": resize(logits, tuple(image.shape[2:])),
        "positive": parts[0],
        "negative": parts[1],
    }
    for name, value in values.items():
        if f"out_{name}_shape" not in golden.arrays:
            continue
        golden.check(f"out_{name}_shape", np.array(value.shape))
        golden.check_close(f"out_{name}_mean", value.mean(dim=(0, 2, 3))[:256], 1e-4)
        shown = value[0, :8, ::2, ::2] if name == "logits_up" else value[0, :8]
        golden.check_close(f"out_{name}_sample", shown, 1e-4)
