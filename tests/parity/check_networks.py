"""Golden files of networks: published weights give published logits."""

import numpy as np
import torch

from contseg.interop.published import convert_segmenter, with_plain_norms
from contseg.models.layers import resize
from contseg.models.normalization import BatchNorm, activation
from tests.parity.goldens import claims, gradients, network_image, network_state

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
