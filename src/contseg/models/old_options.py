"""Flat network keys of earlier versions, so that old recipes, saved runs and segmenters can be read."""

from collections.abc import Iterator, Mapping
from typing import Any

from contseg.models.backbones.options import BACKBONES, DEFAULT_BACKBONE, ResNetOptions, SwinOptions
from contseg.models.heads.options import DEFAULT_HEAD, HEADS
from contseg.models.parts import PartOptions

BACKBONE_KEYS = {
    key: key
    for key in (
        "output_stride", "width", "stem", "initialisation", "norm_momentum", "slope", "contracted", "freeze", "drop_path",
    )
}  # fmt: skip
HEAD_KEYS = {
    "head_width": "width",
    "head_slope": "slope",
    "head_initialisation": "initialisation",
    **{key: key for key in ("fpn_width", "dilations", "pooling_size", "dropout", "idrnet")},
}
OLD_KEYS = {*BACKBONE_KEYS, *HEAD_KEYS, "backbone_options", "auxiliary_width"}
COMPLETE = {"fpn_width", "pooling_size"}
"""No head has both, so they only occur together in a complete list of keys, as in a saved run or segmenter."""


def nested(network: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Convert old flat keys of a network to the current form, with one mapping per part.

    A complete list of old keys contains keys that its parts did not use; these are dropped. Otherwise such a key is kept,
    so that it is refused later. If both are set, the current key is used.

    Args:
        network: as in a recipe; invalid values are kept.
        before: the keys that these override, in the current form.

    Example:
        >>> nested({"backbone": "resnet18", "width": 8, "head": "fcn", "head_width": 16})
        {'backbone': {'width': 8, 'name': 'resnet18'}, 'head': {'width': 16, 'name': 'fcn'}}
    """
    result = {key: value for key, value in network.items() if key not in OLD_KEYS}
    for part in ("backbone", "head"):
        if isinstance(result.get(part), str):
            result[part] = {"name": result[part]}
    if isinstance(result.get("auxiliary"), bool):
        result["auxiliary"] = {} if result["auxiliary"] else None
    for part, key, value in _placed(network, result, before or {}):
        inner = result.get(part) or {}
        inner = inner.model_dump() if isinstance(inner, PartOptions) else inner
        if isinstance(inner, Mapping):  # anything else is refused later
            result[part] = {key: value} | dict(inner)
    if "auxiliary_width" in network and not (network.keys() >= COMPLETE or _has_auxiliary(result, before or {})):
        result["auxiliary_width"] = network["auxiliary_width"]  # refused: there is no auxiliary head
    return result


def _placed(
    network: Mapping[str, Any], result: Mapping[str, Any], before: Mapping[str, Any]
) -> Iterator[tuple[str, str, Any]]:
    """Part, key and value of every old key."""
    backbone = BACKBONES.get(_name("backbone", result, before, DEFAULT_BACKBONE), ResNetOptions)
    head = HEADS.get(_name("head", result, before, DEFAULT_HEAD), HEADS[DEFAULT_HEAD])
    complete = network.keys() >= COMPLETE
    auxiliary = _has_auxiliary(result, before)
    for key, value in network.items():
        if value is None and (complete or HEAD_KEYS.get(key, key) not in head.model_fields):
            continue  # not set
        if key in BACKBONE_KEYS and (BACKBONE_KEYS[key] in backbone.model_fields or not complete):
            yield "backbone", BACKBONE_KEYS[key], value
        elif key == "backbone_options" and (value or not complete):
            if issubclass(backbone, SwinOptions) and isinstance(value, Mapping):
                yield from (("backbone", inner, own) for inner, own in value.items())
            elif value or "options" in backbone.model_fields:
                yield "backbone", "options", value
        elif key == "dropout" and auxiliary:
            yield "auxiliary", "dropout", value
            if "dropout" in head.model_fields:
                yield "head", "dropout", value
        elif key == "dilations" and complete and not _has_pyramid(head.model_fields["name"].default, network):
            continue
        elif key in HEAD_KEYS and (HEAD_KEYS[key] in head.model_fields or not complete):
            yield "head", HEAD_KEYS[key], value
        elif key == "auxiliary_width" and auxiliary:
            yield "auxiliary", "width", value
    if complete and not issubclass(backbone, ResNetOptions):  # heads read these of the network, whatever the backbone
        if "output_stride" in head.model_fields and network.get("output_stride", 16) != 16:
            yield "head", "output_stride", network["output_stride"]
        if network.get("head_slope") is None and "slope" in head.model_fields and network.get("slope", 0.01) != 0.01:
            yield "head", "slope", network["slope"]
        pyramid = _has_pyramid(head.model_fields["name"].default, network)
        if pyramid and network.get("output_stride") == 8 and network.get("dilations") is None:
            yield "head", "dilations", (1, 12, 24, 36)


def _name(part: str, result: Mapping[str, Any], before: Mapping[str, Any], default: str) -> str:
    found = [keys[part]["name"] for keys in (result, before) if isinstance(keys.get(part), Mapping) and "name" in keys[part]]
    return str(found[0]) if found else default


def _has_auxiliary(result: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    return result.get("auxiliary", before.get("auxiliary")) is not None


def _has_pyramid(head: str, network: Mapping[str, Any]) -> bool:
    """Whether a complete list of old keys is of a network with an atrous pyramid."""
    context = (network.get("idrnet") or {}).get("context", "auto")
    return context == "aspp" or (head == "deeplabv3" and context == "auto")
