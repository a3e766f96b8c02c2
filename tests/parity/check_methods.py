"""Golden files of whole method steps, schedules and figures."""

import numpy as np
import torch

from contseg.engine.options import TrainingOptions
from contseg.engine.schedule import lr_multiple
from contseg.evaluation.confusion import confusion_matrix
from contseg.evaluation.metrics import class_accuracy, class_iou, frequency_weighted_iou, overall_accuracy
from contseg.methods.plop_released import PLOPReleased
from contseg.models.classifier import GrowingClassifier
from contseg.models.segmenter import SegmenterOutput
from contseg.scenarios.batch import Batch
from tests.parity.goldens import claims, context_of, gradients


@claims(r"plop/plop_step.*")
def check_plop_step(golden):
    meta, tolerance = golden.meta, 1e-7  # the official factor is float32
    old_classes, new_classes = meta["classes"]
    method = PLOPReleased(pod=meta["pod_factor"], pod_logits=meta["last_factor"])
    method.state["thresholds"] = golden.tensor("in_thresholds")
    labels = golden.tensor("in_labels")
    size = (labels.shape[1], labels.shape[2])
    context = context_of(old_classes, new_classes)
    new_logits, new_small = golden.tensor("in_new_logits", grad=True), golden.tensor("in_new_small_logits", grad=True)
    new_maps = [*golden.numbered("in_new_feature", grad=True), new_small]
    old_maps = [*golden.numbered("in_old_feature"), golden.tensor("in_old_small_logits")]
    student, teacher = (
        SegmenterOutput(logits, {f"map{number}": value for number, value in enumerate(maps)})
        for logits, maps in ((new_logits, new_maps), (golden.tensor("in_old_logits"), old_maps))
    )
    batch = Batch(torch.empty(0), labels, (), torch.zeros(len(labels), old_classes + new_classes, dtype=torch.bool))

    probabilities = teacher.logits_at(size).softmax(dim=1)
    uncertainty = method.uncertainty(probabilities, old_classes + new_classes)
    golden.check("out_entropy_normalised", uncertainty, tolerance)
    golden.check("out_argmax", probabilities.argmax(dim=1))
    golden.check("out_valid_mask", uncertainty < method.state["thresholds"][probabilities.argmax(dim=1)])
    relabelled = method.relabel(batch, teacher, context)
    golden.check("out_pseudo_labels", relabelled.labels)
    golden.check("out_factor", relabelled.weights, tolerance)

    terms = method.losses(relabelled, student, teacher, context)
    golden.check("out_ce", terms["cross_entropy"], tolerance)
    golden.check("out_pod", terms["pod"], tolerance)
    total = terms["cross_entropy"] + terms["pod"]
    golden.check("out_total", total, tolerance)
    names = ["grad_new_logits", "grad_new_small_logits"] + [f"grad_new_feature{i}" for i in range(len(new_maps) - 1)]
    for name, gradient in zip(names, gradients(total, new_logits, new_small, *new_maps[:-1]), strict=True):
        golden.check(name, gradient, tolerance)


@claims(r"mib/balanced_init.*")
def check_balanced_start(golden):
    widths = golden.meta["classes"]
    before = {name: golden.tensor(f"in_{name}") for name in _classifier_names(len(widths))}
    channels = before["cls0_weight"].shape[1]
    classifier = GrowingClassifier(channels, widths[:-1]).double()
    with torch.no_grad():
        for step in range(len(widths) - 1):
            classifier.steps[step].weight.copy_(before[f"cls{step}_weight"])
            classifier.steps[step].bias.copy_(before[f"cls{step}_bias"])
    classifier.grow(widths[-1], "background")
    for step in range(len(widths)):
        golden.check(f"out_cls{step}_weight", classifier.steps[step].weight, 1e-7)
        golden.check(f"out_cls{step}_bias", classifier.steps[step].bias, 1e-7)


def _classifier_names(count: int) -> list[str]:
    return [f"cls{step}_{kind}" for step in range(count) for kind in ("weight", "bias")]


# --- engine and evaluation ----------------------------------------------------------------------------------------


@claims(r"mib/poly_lr.*")
def check_poly_schedule(golden):
    meta = golden.meta
    options = TrainingOptions(lr=meta["base_lr"], power=meta["power"])
    rates = [options.lr * lr_multiple(options, update, meta["max_iters"]) for update in range(len(golden.arrays["out_lr"]))]
    golden.check("out_lr", np.array(rates))


@claims(r"mib/metrics.*")
def check_metrics(golden):
    counts = confusion_matrix(golden.tensor("in_labels"), golden.tensor("in_predictions"), golden.meta["n_classes"]).numpy()
    epsilon = golden.meta["eps"]
    golden.check("out_confusion", counts.astype(float))
    golden.check("out_class_iou", class_iou(counts, epsilon))
    golden.check("out_class_acc", class_accuracy(counts, epsilon))
    golden.check("out_mean_iou", np.nanmean(class_iou(counts, epsilon)))
    golden.check("out_mean_acc", np.nanmean(class_accuracy(counts, epsilon)))
    golden.check("out_overall_acc", np.array(overall_accuracy(counts)))
    golden.check("out_freqw_acc", np.array(frequency_weighted_iou(counts, epsilon)))
