"""Golden files of networks: published weights give published logits."""

from types import SimpleNamespace

import numpy as np
import torch

from contseg.interop.published import convert_segmenter, with_plain_norms
from contseg.models.classifier import GrowingClassifier
from contseg.models.layers import resize
from contseg.models.normalization import BatchNorm, activation
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from tests.parity.goldens import claims, gradients, network_image, network_state

FEATURES = {
    "feat0": "stage1",
    "feat1": "stage2",
    "feat2": "stage3",
    "feat3": "stage4",
    "feat4": "head",
    "pre_logits": "head",
}


@claims(r"(mib|plop|csseg|sdr)/r101_(iabn|bn)_.*")
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
    values["logits_up"] = resize(output.logits, tuple(image.shape[2:]))
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


@claims(r"idec/deeplabv3_r101.*")
def check_ssul_network(golden):
    segmenter, widths = convert_segmenter(floats(network_state(golden)), "idec")
    assert widths == golden.meta["head_widths"]
    assert segmenter.options.unknown
    image = network_image(golden)
    with torch.no_grad():
        output = segmenter(image, taps=("aspp1", "aspp2", "aspp3", "aspp4"))
    logits = resize(output.logits, tuple(image.shape[2:]))
    found = {"logits": logits, "logits_low": output.logits}
    found |= {f"feature_l{number}": output.features[f"aspp{number}"] for number in (1, 2, 3)}
    found["feature_out"] = output.features["aspp4"]
    for name, value in found.items():
        expected = golden.arrays[name]
        golden.check_close(name, value[:, : expected.shape[1]], 1e-4 * float(expected.std()))
    assert (logits.argmax(dim=1).numpy() == golden.arrays["pred"]).mean() > 0.999


def floats(tensors):
    """Counters keep what the network constructs."""
    return {name: value for name, value in tensors.items() if value.is_floating_point()}


@claims(r"idec/w_transfer.*")
def check_start_from_unknown(golden):
    def under(prefix: str) -> dict[str, torch.Tensor]:
        cut = f"{prefix}_classifier.head."
        return {f"steps.{name.removeprefix(cut)}": golden.tensor(name) for name in golden.arrays if name.startswith(cut)}

    old, expected = under("in_old"), under("out")
    widths = golden.meta["head_widths"]
    classifier = GrowingClassifier(old["steps.0.0.weight"].shape[0], widths[:-1], unknown=True, hidden=True)
    classifier.load_state_dict(old)
    classifier.grow(widths[-1], "unknown")
    new_counter = f"steps.{len(widths) - 1}.1.num_batches_tracked"
    for name, value in classifier.state_dict().items():
        if name == new_counter:
            assert value == 0, "a new norm has seen nothing yet, whatever it was started from"
        else:
            assert torch.equal(value, expected[name]), name


@claims(r"idec/inference_merge.*")
def check_scores(golden):
    logits = golden.tensor("in_logits")
    for name, decision, unknown in (
        ("bce_unknown", "sigmoid", True),
        ("bce_plain", "sigmoid", False),
        ("ce_unknown", "softmax", True),
    ):
        options = NetworkOptions(decision=decision, unknown=unknown)
        scores = Segmenter.scores(SimpleNamespace(options=options), logits)
        golden.check(f"out_prob_{name}", scores, 1e-6)
        golden.check(f"out_pred_{name}", scores.argmax(dim=1))
