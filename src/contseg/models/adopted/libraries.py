"""Make networks of transformers, segmentation_models.pytorch and torchvision from their configurations, without weights."""

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from torch import nn

from contseg.errors import ContsegError, did_you_mean
from contseg.models.imports import import_library

HF_CLASSIFIERS = {
    "SegformerForSemanticSegmentation": "decode_head.classifier",
    "UperNetForSemanticSegmentation": "decode_head.classifier",
    "BeitForSemanticSegmentation": "decode_head.classifier",
    "DPTForSemanticSegmentation": "head.head.4",
}
"""Architectures of transformers, with the name of their last convolution."""

SMP_CLASSIFIERS = dict.fromkeys(
    ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "PAN", "UPerNet",
     "Segformer"),
    "segmentation_head.0",
) | {"DPT": "segmentation_head.head.4"}  # fmt: skip
"""Architectures of smp, with the name of their last convolution."""

TORCHVISION_CLASSIFIERS = {
    "deeplabv3_resnet50": ("classifier.4",),
    "deeplabv3_resnet101": ("classifier.4",),
    "deeplabv3_mobilenet_v3_large": ("classifier.4",),
    "fcn_resnet50": ("classifier.4",),
    "fcn_resnet101": ("classifier.4",),
    "lraspp_mobilenet_v3_large": ("classifier.low_classifier", "classifier.high_classifier"),
}
"""Functions of torchvision, with the names of the last convolutions of their networks."""

KNOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "transformers": {name: (last,) for name, last in HF_CLASSIFIERS.items()},
    "smp": {name: (last,) for name, last in SMP_CLASSIFIERS.items()},
    "torchvision": TORCHVISION_CLASSIFIERS,
}
"""Library -> architecture -> names of the last convolutions."""
EXTRAS = {"transformers": "hf", "smp": "smp", "torchvision": "torchvision"}
PACKAGES = {
    "transformers": "transformers",
    "smp": "segmentation_models_pytorch",
    "torchvision": "torchvision.models.segmentation",
}
UNUSED_KEYS = {"id2label", "label2id", "architectures", "torch_dtype", "dtype", "transformers_version", "_name_or_path",
    "attn_implementation", "_attn_implementation", "auto_map", "quantization_config"}  # fmt: skip
"""Keys of a `config.json` of transformers that describe files, classes or the machine; the last could load code."""


def make_module(name: str, architecture: str, config: dict[str, Any]) -> nn.Module:
    """A network without weights, made by its library; nothing is downloaded.

    Args:
        name: a key of `KNOWN`.
        architecture: class or function of the library.
        config: its arguments.

    Raises:
        ContsegError: the library is not installed, the architecture is unknown, or the arguments are invalid.
    """
    if architecture not in KNOWN[name]:
        near = did_you_mean(architecture, KNOWN[name])
        raise ContsegError(f"network.backbone.architecture: {name} has no supported '{architecture}'; {near}")
    found: Any = import_transformers() if name == "transformers" else import_library(PACKAGES[name], EXTRAS[name])
    try:
        if name == "transformers":
            return getattr(found, architecture)(getattr(found, architecture).config_class(**hf_config(config)))
        own = smp_config(config) if name == "smp" else torchvision_config(config)
        return getattr(found, architecture)(**own)
    except (TypeError, ValueError, KeyError, AttributeError, ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ContsegError(f"network.backbone: {name} cannot make {architecture} of its config ({reason})") from None


def import_transformers() -> Any:
    """transformers, imported on first use.

    Raises:
        ContsegError: it is not installed.
    """
    with suppress(ContsegError):
        import_library("torchvision", "torchvision")  # some modules of transformers import it where it is installed
    return import_library("transformers", "hf")


def hf_config(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a configuration of transformers, without an auxiliary head and without what would be downloaded.

    Raises:
        ContsegError: the backbone is only named, so that its configuration would be downloaded.
    """
    kept: dict[str, Any] = {key: value for key, value in config.items() if key not in UNUSED_KEYS}
    if isinstance(kept.get("backbone"), str) and not kept.get("backbone_config"):
        raise ContsegError(
            f"config.json: backbone '{kept['backbone']}' is a name on the hub, and nothing is downloaded; save the model"
            " again with its backbone_config"
        )
    for key, value in kept.items():
        if isinstance(value, dict) and "model_type" in value:
            kept[key] = {name: one for name, one in value.items() if name not in UNUSED_KEYS}
    for part in (kept, *(value for value in kept.values() if isinstance(value, dict))):
        if part.get("use_pretrained_backbone"):
            part["use_pretrained_backbone"] = False
    return kept | {"use_auxiliary_head": False}


def smp_config(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a network of smp, without weights of its encoder, activation and classification head."""
    kept = {key: value for key, value in config.items() if not key.startswith("_")}
    return kept | {"encoder_weights": None, "activation": None, "aux_params": None}


def torchvision_config(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a network of torchvision, without weights and without an auxiliary classifier."""
    return config | {"weights": None, "weights_backbone": None, "aux_loss": False}


def recognised(module: nn.Module) -> dict[str, Any]:
    """The options with which a network of a supported library can be made again; empty for others."""
    place, architecture = type(module).__module__, type(module).__name__
    if place.startswith("transformers.") and architecture in KNOWN["transformers"]:
        given: Any = module.config
        config = hf_config(given.to_dict()) | {"num_labels": given.num_labels}
        side = given.image_size if architecture.startswith(("Beit", "DPT")) else None
        fixed = {"size": tuple(side) if isinstance(side, list | tuple) else (side, side)} if side else {}
        return _options("transformers", architecture, config) | fixed
    if place.startswith("segmentation_models_pytorch.") and architecture in KNOWN["smp"]:
        network: Any = module
        multiple = int(network.encoder.output_stride) if network.requires_divisible_input_shape else 1
        return _options("smp", architecture, smp_config(network.config)) | {"multiple": multiple}
    if place.startswith("torchvision.models.segmentation."):
        names = module.state_dict()
        function = torchvision_function(names)
        last = f"{KNOWN['torchvision'][function][-1]}.weight"
        return _options("torchvision", function, {"num_classes": len(names[last])})
    return {}


def _options(name: str, architecture: str, config: dict[str, Any]) -> dict[str, Any]:
    plain = json.loads(json.dumps(config))  # as it is read from a file
    return {"library": name, "architecture": architecture, "config": plain, "classifier": KNOWN[name][architecture]}


def torchvision_function(names: Iterable[str]) -> str:
    """The function of torchvision that makes a network with these tensor names.

    Raises:
        ContsegError: no function does.

    Example:
        >>> torchvision_function(["backbone.0.0.weight", "classifier.low_classifier.weight"])
        'lraspp_mobilenet_v3_large'
    """
    names = set(names)
    heads = {"classifier.low_classifier.weight": "lraspp", "classifier.0.convs.0.0.weight": "deeplabv3"}
    head = next((kind for name, kind in heads.items() if name in names), "fcn")
    backbones = {
        "backbone.layer3.22.conv3.weight": "resnet101",
        "backbone.layer3.5.conv3.weight": "resnet50",
        "backbone.0.0.weight": "mobilenet_v3_large",
    }
    backbone = next((kind for name, kind in backbones.items() if name in names), "")
    if f"{head}_{backbone}" not in KNOWN["torchvision"]:
        known = ", ".join(KNOWN["torchvision"])
        raise ContsegError(f"tensor names such as {', '.join(sorted(names)[:2])} are of none of {known}")
    return f"{head}_{backbone}"


def strip(module: nn.Module) -> None:
    """Remove auxiliary outputs and the final activation of a network of a supported library."""
    for name in ("auxiliary_head", "aux_classifier", "classification_head"):
        if getattr(module, name, None) is not None:
            setattr(module, name, None)
    head: Any = getattr(module, "segmentation_head", None)
    if isinstance(head, nn.Sequential):
        head[-1] = nn.Identity()
    elif head is not None:
        head.activation = nn.Identity()
