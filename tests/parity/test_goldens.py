"""Every golden file is reproduced, values and gradients. `CONTSEG_GOLDENS=DIR` runs the same tests on another folder."""

import math
import re

import numpy as np
import pytest
import torch

from contseg.data.classes import ClassTable
from contseg.data.presence import Presence
from contseg.engine.options import TrainingOptions
from contseg.engine.schedule import lr_multiple
from contseg.evaluation.confusion import confusion_matrix
from contseg.evaluation.metrics import class_accuracy, class_iou, frequency_weighted_iou, overall_accuracy
from contseg.interop.published import convert_segmenter, with_plain_norms
from contseg.losses.confidence import class_histogram, histogram_median, mean_entropy, released_median
from contseg.losses.cross_entropy import cross_entropy, unbiased_cross_entropy
from contseg.losses.distillation import unbiased_distillation
from contseg.losses.pod import fold_new_classes, local_pod_distance, local_pod_embedding, local_pod_loss
from contseg.methods.plop import PLOP
from contseg.models.classifier import GrowingClassifier
from contseg.models.normalization import BatchNorm, activation
from contseg.models.segmenter import SegmenterOutput, resize_logits
from contseg.scenarios.batch import Batch
from contseg.scenarios.orders import published_orders
from contseg.scenarios.policy import LabelPolicy
from contseg.scenarios.selection import select
from contseg.scenarios.splits import parse_split
from tests.parity.goldens import ROOT, Golden, gradients, network_image, network_state

CLAIMS: list[tuple[str, object]] = []


def claims(pattern: str):
    """The check of the golden files whose `family/name` matches."""

    def register(check):
        CLAIMS.append((pattern, check))
        return check

    return register


FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("*/*.npz"))


@pytest.mark.parametrize("file", FILES)
def test_golden_is_reproduced(file):
    checks = [check for pattern, check in CLAIMS if re.fullmatch(pattern, file.removesuffix(".npz"))]
    assert len(checks) == 1, f"{file}: claimed by {len(checks)} checks; every golden needs exactly one"
    checks[0](Golden(ROOT / file))


def test_there_are_goldens():
    assert FILES, f"{ROOT} holds no family/file.npz"


# --- losses -------------------------------------------------------------------------------------------------------


@claims(r"mib/unbiased_ce.*")
def check_unbiased_cross_entropy(golden):
    logits, labels = golden.tensor("in_logits", grad=True), golden.tensor("in_labels")
    loss = unbiased_cross_entropy(logits, labels, golden.meta["old_classes_with_bg"])
    golden.check("out_map", loss)
    over_all, over_valid = loss.mean(), loss.sum() / (labels != 255).sum()
    golden.check("out_mean_all_pixels", over_all)
    golden.check("out_mean_valid_pixels", over_valid)
    golden.check("grad_logits_of_mean_all_pixels", *gradients(over_all, logits))
    golden.check("grad_logits_of_mean_valid_pixels", *gradients(over_valid, logits))


@claims(r"mib/cross_entropy.*")
def check_cross_entropy(golden):
    logits = golden.tensor("in_logits", grad=True)
    loss = cross_entropy(logits, golden.tensor("in_labels"))
    golden.check("out_map", loss)
    golden.check("out_mean_all_pixels", loss.mean())
    golden.check("grad_logits", *gradients(loss.mean(), logits))


@claims(r"mib/unbiased_kd.*")
def check_unbiased_distillation(golden):
    logits, mask = golden.tensor("in_logits", grad=True), golden.tensor("in_mask")
    ends = [name.removeprefix("out_map_") for name in golden.arrays if name.startswith("out_map_")]
    for alpha, end in zip(golden.meta["alphas"], ends, strict=True):
        loss = unbiased_distillation(logits, golden.tensor("in_old_logits"), alpha)
        golden.check(f"out_map_{end}", loss)
        for kind, mean in (("mean", loss.mean()), ("mean_masked", (loss * mask).mean())):
            golden.check(f"out_{kind}_{end}", mean)
            golden.check(f"grad_logits_{kind}_{end}", *gradients(mean, logits))


@claims(r"plop/entropy.*")
def check_entropy(golden):
    probabilities = golden.tensor("in_logits").softmax(dim=1)
    golden.check("in_probabilities", probabilities)
    golden.check("out_entropy", mean_entropy(golden.tensor("in_probabilities")))


@claims(r"plop/local_pod_embedding.*")
def check_local_pod_embedding(golden):
    x = golden.tensor("in_x", grad=True)
    embedding = local_pod_embedding(x, golden.meta.get("spp_scales", (1, 2, 4)), regions="square")
    golden.check("out_embedding", embedding)
    golden.check("grad_x_of_weighted_sum", *gradients((embedding * golden.tensor("in_weight")).sum(), x))


@claims(r"plop/local_pod_loss.*")
def check_local_pod_loss(golden):
    meta = golden.meta
    old, new = golden.numbered("in_old"), golden.numbered("in_new", grad=True)
    folded = [*new[:-1], fold_new_classes(new[-1], old[-1].shape[1])]
    growth = math.sqrt(meta["n_all_classes"] / meta["n_new_classes"])
    scales = meta.get("spp_scales", (1, 2, 4))
    distances = [local_pod_distance(a, b, "square", scales) for a, b in zip(old, folded, strict=True)]
    golden.check("out_distance", torch.stack(distances))
    factors = [meta["pod_factor"]] * (len(old) - 1) + [meta["last_factor"]]
    loss = local_pod_loss(old, folded, factors, growth, "square", scales)
    golden.check("out_loss", loss)
    golden.check("out_loss_without_schedule", local_pod_loss(old, folded, factors, 1.0, "square", scales))
    same = [meta["pod_factor"]] * len(old)
    golden.check("out_loss_without_switch", local_pod_loss(old, folded, same, growth, "square", scales))
    for number, gradient in enumerate(gradients(loss, *new)):
        golden.check(f"grad_new{number}", gradient)


@claims(r"plop/median_thresholds.*")
def check_median_thresholds(golden):
    meta = golden.meta
    classes, bins = sum(meta["classes"]), meta["bins"]
    probabilities = golden.tensor("in_old_logits").flatten(0, 1).softmax(dim=1)
    background = golden.tensor("in_labels").flatten(0, 1) == 0
    if meta["mode"] == "entropy":
        values = mean_entropy(probabilities) / math.log(classes)
    else:
        values = probabilities.amax(dim=1)
    histogram = class_histogram(values[background], probabilities.argmax(dim=1)[background], classes, bins)
    golden.check("out_histogram", histogram)
    golden.check("ref_true_median", histogram_median(histogram))
    released, base = released_median(histogram), meta["base_threshold"]
    bounded = released.clamp(min=base) if meta["mode"] == "entropy" else released.clamp(max=base)
    golden.check("out_thresholds", bounded, tolerance=1e-6)  # float32
    if meta["mode"] == "entropy" and bins == 100:
        golden.check("out_thresholds", PLOP(variant="released", floor=base).thresholds(histogram), tolerance=1e-6)


# --- methods ------------------------------------------------------------------------------------------------------


@claims(r"plop/plop_step.*")
def check_plop_step(golden):
    meta, tolerance = golden.meta, 1e-7  # the official factor is float32
    old_classes, new_classes = meta["classes"]
    method = PLOP(pod=meta["pod_factor"], pod_logits=meta["last_factor"], variant="released")
    method.state["thresholds"] = golden.tensor("in_thresholds")
    labels = golden.tensor("in_labels")
    size = (labels.shape[1], labels.shape[2])
    context = FakeContext(old_classes, new_classes)
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


class FakeContext:
    """What PLOP reads of a context: the counts of the step."""

    def __init__(self, old_count: int, new_count: int):
        self.step = self
        self.old_count, self.new_count, self.seen_count = old_count, new_count, old_count + new_count


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


# --- protocols ----------------------------------------------------------------------------------------------------

SPLIT_NAMES = {"15-5s": "15-1", "10-10s": "10-1", "50": "50-50"}
TABLES = {
    "voc": ClassTable.of([str(number) for number in range(21)]),
    "ade": ClassTable.of([str(number) for number in range(151)], background="unlabelled"),
}


@claims(r"(mib|plop|sdr)/protocol_.*")
def check_protocol(golden):
    dataset, split, *letter = golden.path.stem.removeprefix("protocol_").split("_")
    table, split = TABLES[dataset], SPLIT_NAMES.get(split, split)
    order, widths = _order_and_widths(golden, dataset, split, letter, table)
    ends = np.cumsum([0, *widths])
    checked = 0
    for name in golden.arrays:
        found = re.fullmatch(r"out_(disjoint|overlapped|sequential)_step(\d+)_(train|val|test)(_ignore_bg)?_masks", name)
        if not found:
            continue
        setting, step, role, ignore_background = found[1], int(found[2]), found[3], bool(found[4])
        new = order[ends[step] + 1 : ends[step + 1] + 1] if step else order[: ends[1] + 1]
        old = order[: ends[step] + 1] if step else ()
        masks = golden.arrays["in_masks_train" if role == "train" else "in_masks_val"]
        presence = _presence(masks, table)
        wanted = old + new if role == "test" else new
        rows = select(presence, wanted, old, setting if role == "train" else "overlapped")
        policy = LabelPolicy("plop" if golden.family == "plop" else "mib", ignore_background)
        labels = policy.lookup(table, order, new, old, role, setting)[masks[rows]]
        if f"out_{setting}_step{step}_{role}_index" in golden.arrays:
            golden.check(f"out_{setting}_step{step}_{role}_index", rows)
        golden.check(name, labels)
        checked += 1
    assert checked


def _order_and_widths(golden, dataset, split, letter, table):
    """Order and classes per step: by the file's name, and the same as its task table where it has one."""
    task = [tuple(golden.meta["task"][key]) for key in sorted(golden.meta.get("task", {}), key=int)]
    if not task:
        order = published_orders()[dataset, split, letter[0]] if letter else table.ids
        return order, parse_split(split, len(table) - 1)
    order = tuple(number for step in task for number in step)
    widths = tuple(len(step) - (index == 0) for index, step in enumerate(task))
    if (dataset, split, *letter) in published_orders():
        assert order == published_orders()[dataset, split, letter[0]]
    if not letter and re.fullmatch(r"\d+(-\d+)+", split):
        assert order == table.ids
        assert parse_split(split, len(table) - 1) == widths
    return order, widths


def _presence(masks: np.ndarray, table: ClassTable) -> Presence:
    pixels = np.stack([(masks == number).sum(axis=(1, 2)) for number in table.ids], axis=1)
    return Presence(tuple(str(row) for row in range(len(masks))), table.ids, pixels)


# --- networks -----------------------------------------------------------------------------------------------------

FEATURES = {
    "feat0": "stage1",
    "feat1": "stage2",
    "feat2": "stage3",
    "feat3": "stage4",
    "feat4": "head",
    "pre_logits": "head",
}


@claims(r"(mib|plop|csseg|sdr)/r101_iabn_.*")
def check_network(golden):
    segmenter, widths = convert_segmenter(network_state(golden), golden.family)
    assert widths == golden.meta["num_known_classes_list"]
    segmenter.head.pooling_size = golden.meta["pooling_size"]
    image = network_image(golden)
    with torch.no_grad():
        output = segmenter(image, taps=("stage1", "stage2", "stage3", "stage4", "head"))
    raw = not golden.meta["gain"]  # activations of 1e5: compare at 1e-5 of their deviation

    def tolerance(name: str) -> float:
        return 1e-5 * golden.meta["stats"][name]["std"] if raw else 1e-4

    golden.check_close("out_logits", output.logits, tolerance("logits"))
    golden.check_close("ref64_logits", output.logits.double(), tolerance("logits"))
    values = {name: output.features[tap] for name, tap in FEATURES.items()}
    values["body"] = segmenter.backbone.activate(output.features["stage4"])
    values["logits_up"] = resize_logits(output.logits, tuple(image.shape[2:]))
    for name, value in values.items():
        if f"out_{name}_shape" in golden.arrays:
            golden.check(f"out_{name}_shape", np.array(value.shape))
            golden.check_close(f"out_{name}_mean", value.mean(dim=(0, 2, 3))[:256], tolerance(name))
            golden.check_close(f"out_{name}_sample", value[0, :8], tolerance(name))


@claims(r"csseg/inplace_abn.*")
def check_inplace_norm(golden):
    meta, tolerance = golden.meta, 1e-8
    weight = golden.tensor("in_weight")
    state = {key: golden.tensor(f"in_{key}") for key in ("weight", "bias", "running_mean", "running_var")}
    converted = with_plain_norms({f"norm.{key}": value for key, value in state.items()})
    for kind in ("leaky_relu", "identity"):
        for mode in ("train", "eval"):
            norm = BatchNorm(len(weight), eps=meta["eps"], momentum=meta["momentum"]).double()
            norm.load_state_dict({key.removeprefix("norm."): value for key, value in converted.items()}, strict=False)
            norm.train(mode == "train")
            x = golden.tensor("in_x", grad=True)
            y = activation(meta["slope"] if kind == "leaky_relu" else 1.0)(norm(x))
            golden.check(f"out_y_{kind}_{mode}", y, tolerance)
            scalar = (y * golden.tensor("in_output_gradient")).sum()
            grad_x, grad_gain, grad_bias = gradients(scalar, x, norm.weight, norm.bias)
            golden.check(f"grad_x_{kind}_{mode}", grad_x, tolerance)
            golden.check(f"grad_bias_{kind}_{mode}", grad_bias, tolerance)
            # gain = |w| + eps, so dL/dw = sign(w) dL/dgain; at w = 0 the kernel takes +1
            sign = torch.where(weight < 0, -1.0, 1.0)
            golden.check(f"grad_weight_{kind}_{mode}", grad_gain * sign, tolerance)
            if mode == "train":
                golden.check("out_running_mean_train", norm.running_mean, tolerance)
                golden.check("out_running_var_train", norm.running_var, tolerance)
