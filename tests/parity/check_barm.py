"""Golden files of BARM."""

import numpy as np
import torch
from torch import nn

from contseg.interop.residual import convert_residual
from contseg.losses.background_residual import merged
from contseg.methods.barm_released import BARMReleased
from contseg.models.decision import class_scores
from contseg.models.heads.deeplabv3_ssul import ProjectedASPP
from contseg.models.layers import resize
from contseg.models.options import NetworkOptions
from contseg.models.residual import ResidualClassifier
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.scenarios.batch import Batch
from tests.parity.check_networks import floats
from tests.parity.goldens import claims, context_of, gradients, network_image, network_state

TERMS = {
    "supervised": "binary",
    "background_margin": "margin",
    "branch": "branch",
    "group": "group",
    "residual": "residual",
}


def widths_of(golden) -> list[int]:
    background, first, *others = golden.meta["widths"]
    return [background + first, *others]


def classifier_name(name: str) -> str:
    """Of a branch or its 1x1, `head_pre.0.weight`, `ear.1.1.bias` or `head.0.weight`."""
    part, rest = name.split(".", 1)
    if part == "head_pre":
        return f"steps.0.{rest}"
    number, rest = rest.split(".", 1)
    return f"steps.{int(number) + 1}.{rest}" if part == "ear" else f"steps.{number}.3.{rest}"


def pyramid_name(name: str) -> str:
    name = name.removeprefix("aspp.")
    if name.startswith("convs.4."):
        _, _, layer, rest = name.split(".", 3)
        return f"pooled.{int(layer) - 1}.{rest}"
    return name.replace("convs.", "branches.")


def head_of(golden) -> tuple[ProjectedASPP, ResidualClassifier]:
    """The pyramid and the classifier of a golden, norms in evaluation mode and dropout off."""
    state = {name.removeprefix("in_state."): golden.tensor(name) for name in golden.arrays if name.startswith("in_state.")}
    width, rates = golden.meta["width"], tuple(golden.meta["rates"])
    aspp = ProjectedASPP(golden.arrays["in_map"].shape[1], width, rates).double().eval()
    classifier = ResidualClassifier(width, widths_of(golden)).double().eval()
    pyramid = {pyramid_name(name): value for name, value in state.items() if name.startswith("aspp.")}
    rest = {classifier_name(name): value for name, value in state.items() if not name.startswith("aspp.")}
    for module, values in ((aspp, pyramid), (classifier, rest)):
        missing, unexpected = module.load_state_dict(values, strict=False)
        assert not unexpected
        assert all(name.endswith("num_batches_tracked") for name in missing)
    return aspp, classifier


def trained(classifier: ResidualClassifier, mode: bool) -> ResidualClassifier:
    """The classifier in a mode, its norms in evaluation mode, as in later steps."""
    classifier.train(mode)
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return classifier


@claims(r"barm/head")
def check_head(golden):
    aspp, classifier = head_of(golden)
    feature = aspp(golden.tensor("in_map"))
    golden.check("out_feature", feature)
    for mode in ("eval", "train"):
        logits, outputs = trained(classifier, mode == "train").run(feature, ("branches", "raw_logits"))
        golden.check(f"out_logits_{mode}", logits)
        branches = outputs["branches"].split(golden.meta["width"], dim=1)
        raw = outputs["raw_logits"].split(classifier.raw_widths, dim=1)
        for number, (branch, values) in enumerate(zip(branches, raw, strict=True)):
            golden.check(f"out_branch{number}", branch)
            golden.check(f"out_raw{number}", values)


@claims(r"barm/start_new_branch")
def check_start(golden):
    widths, step = widths_of(golden), golden.meta["step"]
    prefixes = {prefix: {name.removeprefix(prefix): golden.tensor(name) for name in golden.arrays if name.startswith(prefix)}
                for prefix in ("in_before.", "in_old.", "out_")}  # fmt: skip
    width = prefixes["in_old."]["head_pre.0.weight"].shape[0]
    options = NetworkOptions(
        backbone={"name": "resnet18", "width": 4},
        head={"name": "deeplabv3-barm", "width": width},
        background="residual",
        decision="sigmoid",
    )
    segmenter = Segmenter(options, widths[:step]).double()
    old = {classifier_name(name): value for name, value in prefixes["in_old."].items()}
    fresh = {name: value for name, value in prefixes["in_before."].items() if name.startswith(("head.", f"ear.{step - 1}."))}
    segmenter.classifier = ResidualClassifier(width, widths[:step]).double()
    segmenter.classifier.load_state_dict(old, strict=False)
    segmenter.classifier._make = lambda count: drawn(width, count, step, fresh)
    segmenter.grow(widths[step], "branch")
    context = context_of(sum(widths[:step]), widths[step], segmenter)
    BARMReleased().prepare(segmenter, context.step)
    state = segmenter.state_dict()
    for name in prefixes["out_"]:
        golden.check(f"out_{name}", state[f"classifier.{classifier_name(name)}"])


def drawn(width: int, count: int, step: int, fresh: dict[str, torch.Tensor]) -> nn.Module:
    """A new branch with the random start of a golden."""
    branch = ResidualClassifier(width, [count])._make(count).double()
    branch.load_state_dict({classifier_name(name).removeprefix(f"steps.{step}."): value for name, value in fresh.items()})
    return branch


@claims(r"barm/iteration")
def check_iteration(golden):
    widths, meta, labels = widths_of(golden), golden.meta, golden.tensor("in_labels")
    step, new = meta["step"], widths[meta["step"]]
    old = sum(widths[:step])
    branches, raw = golden.numbered("in_branch", grad=True), []
    weights = [golden.tensor(f"in_classifier{number}_weight", grad=True) for number in range(step + 1)]
    biases = [golden.tensor(f"in_classifier{number}_bias", grad=True) for number in range(step + 1)]
    for number, (branch, weight, bias) in enumerate(zip(branches, weights, biases, strict=True)):
        values = torch.einsum("bchw,oc->bohw", branch, weight) + bias[:, None, None]
        golden.check(f"in_raw{number}", values)
        raw.append(values)
    classifier = ResidualClassifier(branches[0].shape[1], widths[: step + 1]).double()
    student = SegmenterOutput(
        merged_of(classifier, raw, training=True), {"branches": torch.cat(branches, 1), "raw_logits": torch.cat(raw, 1)}
    )
    golden.check("out_merged", student.logits)
    theirs = golden.numbered("in_teacher_raw")
    teacher = SegmenterOutput(
        merged_of(classifier, theirs, training=False),
        {"branches": torch.cat(golden.numbered("in_teacher_branch"), 1), "raw_logits": torch.cat(theirs, 1)},
    )
    golden.check("in_teacher_logits", teacher.logits)
    options = NetworkOptions(
        backbone={"name": "resnet18", "width": 4}, head="deeplabv3-barm", background="residual", decision="sigmoid"
    )
    context = context_of(old, new, Segmenter(options, widths[: step + 1]))
    factors = meta["weights"]
    method = BARMReleased(
        threshold=meta["threshold"],
        margin=factors["background_margin"],
        branch=factors["branch"],
        group=factors["group"],
        residual=factors["residual"],
    )
    annotated = torch.zeros(len(labels), old + new, dtype=torch.bool)
    annotated[:, old:] = True
    for place, image in enumerate(labels):  # a given old label is true
        annotated[place, [one for one in image.unique().tolist() if 0 < one < old]] = True
    batch = method.relabel(Batch(torch.empty(0), labels, (), annotated), teacher, context)
    golden.check("out_pseudo_labels", batch.labels)
    terms = method.losses(batch, student, teacher, context)
    for name, term in TERMS.items():
        golden.check(f"out_loss_{name}", terms[term] / factors.get(name, 1))
    total = sum(terms.values())
    golden.check("out_loss", total)
    for kind, values in (("branch{}", branches), ("raw{}", raw)):
        for number, gradient in enumerate(gradients(total, *values)):
            golden.check(f"grad_{kind.format(number)}", gradient)
    for kind, values in (("weight", weights), ("bias", biases)):
        for number, gradient in enumerate(gradients(total, *values)):
            golden.check(f"grad_classifier{number}_{kind}", gradient)
    check_gradient_of_the_map(golden, branches, total)


def check_gradient_of_the_map(golden, branches, total):
    """The branches are those of head.npz; the gradient goes on into its input."""
    head = type(golden)(golden.path.with_name("head.npz"))
    aspp, classifier = head_of(head)
    given = head.tensor("in_map", grad=True)
    found = trained(classifier, True).run(aspp(given), ("branches",))[1]["branches"]
    upstream = torch.cat(gradients(total, *branches), dim=1)
    golden.check("grad_map", *gradients((found * upstream).sum(), given))


def merged_of(classifier: ResidualClassifier, raw, training: bool) -> torch.Tensor:
    return merged(raw, training)


@claims(r"barm/decision")
def check_decision(golden):
    logits, expected = golden.tensor("in_logits"), golden.arrays["out_prediction"]
    scores = resize(class_scores(logits, "sigmoid"), tuple(expected.shape[1:]))
    golden.check("out_scores", scores[:, :, ::4, ::4])
    golden.check("out_prediction", scores.argmax(dim=1))


@claims(r"barm/r101_.*")
def check_network(golden):
    segmenter, widths = convert_residual(floats(network_state(golden)), "barm")
    assert widths == widths_of(golden)
    with torch.no_grad():
        output = segmenter(network_image(golden), taps=("stage4", "head", "branches"))
    golden.check_close("out_logits", output.logits, 1e-4)
    golden.check_close("ref64_logits", output.logits.double(), 1e-4)
    branches = output.features["branches"].split(segmenter.head.width, dim=1)
    values = {f"branch{number}": branch for number, branch in enumerate(branches)}
    values |= {"body": segmenter.backbone.activate(output.features["stage4"]), "aspp": output.features["head"]}
    for name, value in values.items():
        golden.check(f"{name}_shape", np.array(value.shape))
        golden.check_close(f"{name}_mean", value.mean(dim=(0, 2, 3))[:256], 1e-4)
        golden.check_close(f"{name}_sample", value[0, :8], 1e-4)
