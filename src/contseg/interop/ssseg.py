"""Published networks of the IDRNet toolbox: convert their names, and infer the network options of a file."""

import re
from typing import Any

from torch import Tensor

from contseg.errors import ContsegError
from contseg.interop.names import renamed
from contseg.interop.ssseg_swin import swin_options, swin_tensors
from contseg.models.heads.idrnet.options import CONTEXT
from contseg.models.options import NetworkOptions, laid_over

CONTEXT_NAMES = (
    (r"\.parallel_branches\.", ".branches."),
    (r"\.global_branch\.(\d)\.", lambda m: f".pooled.{int(m[1]) - 1}."),
)
PPM_BRANCH = (r"(context\.branches\.\d)\.(\d)\.", lambda m: f"{m[1]}.{int(m[2]) - 1}.")
SHARED_NAMES = (
    (r"^backbone_net\.", "backbone."),
    (r"^auxiliary_decoder\.4\.", "auxiliary.classifier.steps.0."),
    (r"^auxiliary_decoder\.", "auxiliary.convolution."),
    (r"^lateral_convs\.", "head.pyramid.laterals."),
    (r"^fpn_convs\.", "head.pyramid.outputs."),
)
IDRNET_NAMES = (
    (r"^class_relations_mean$", "head.tables.mean"),
    (r"^class_relations_var$", "head.tables.variance"),
    (r"^selected_classes_counter$", "head.tables.counter"),
    (r"^dl_cls_representations$", "head.tables.memory"),
    (r"^bottleneck\.", "head.bottleneck."),
    (r"^coarse_context_module\.", "head.context."),
    (r"^coarsecontext_refiner_(before|after)\.", "head.context_refiner."),
    (r"^idcontext_refiner\.", "head.attention."),
    (r"\.(key|query|value|out)_project\.", r".\1."),
    (r"^decoder_stage1\.4\.", "head.classifier_stage1.steps.0."),
    (r"^decoder_stage2\.4\.", "classifier.steps.0."),
    (r"^decoder_stage", "head.decoder_stage"),
)
PLAIN_NAMES = {
    "fcn": (
        (r"^decoder\.7\.", "classifier.steps.0."),
        (r"^decoder\.([01])\.", r"head.first.\1."),
        (r"^decoder\.([34])\.", lambda m: f"head.second.{int(m[1]) - 3}."),
    ),
    "pspnet": ((r"^decoder\.1\.", "classifier.steps.0."), (r"^ppm_net\.", "head.context.")),
    "deeplabv3": ((r"^decoder\.1\.", "classifier.steps.0."), (r"^aspp_net\.", "head.context.")),
    "upernet": (
        (r"^decoder\.4\.", "classifier.steps.0."),
        (r"^decoder\.", "head.decoder."),
        (r"^ppm_net\.", "head.context."),
    ),
}


def ssseg_names(tensors: dict[str, Tensor], options: NetworkOptions) -> dict[str, Tensor]:
    """The tensors under our names."""
    head, idrnet = options.head.name, options.idrnet
    rules = [*SHARED_NAMES, *(IDRNET_NAMES if idrnet else PLAIN_NAMES[head]), *CONTEXT_NAMES]
    if (idrnet.context_of(head) if idrnet else CONTEXT[head]) == "ppm":
        rules.append(PPM_BRANCH)
    found = {renamed(name, rules): value for name, value in tensors.items()}
    return swin_tensors(found) if options.backbone.name.startswith("swin_") else found


def ssseg_options(tensors: dict[str, Tensor], **changes: Any) -> NetworkOptions:
    """The network of a file, read from names and shapes.

    Args:
        tensors: under the names of the toolbox.
        changes: options that are not inferred from the file: `stage1_on` (`bottleneck` in the published PSPNet of
            Cityscapes, which is recognised by its 19 classes and 1024 channels), and any option of the network.

    Raises:
        ContsegError: the network is unknown.
    """
    idrnet = "class_relations_mean" in tensors
    family, context = _family(tensors)
    head: dict[str, Any] = {"name": family}
    if "lateral_convs.0.0.weight" in tensors:
        head["fpn_width"] = int(tensors["lateral_convs.0.0.weight"].shape[0])
    if context == "aspp":
        head["dilations"] = (1, 12, 24, 36)
    stage1_on = changes.pop("stage1_on", None)
    if idrnet:
        width = head["width"] = int(tensors["bottleneck.0.weight"].shape[0])
        classes = len(tensors["class_relations_mean"])
        raw = family == "pspnet" and (classes, width) == (19, 1024)
        refined = [when for when in ("before", "after") if f"coarsecontext_refiner_{when}.out_project.0.weight" in tensors]
        head["idrnet"] = {
            "context": context,
            "refine": refined[0] if refined else "none",
            "stage1_on": stage1_on or ("bottleneck" if raw else "context"),
            "attention_width": int(tensors["idcontext_refiner.value_project.0.weight"].shape[0]),
        }
    else:
        last = next(
            name
            for name in ("decoder.7.weight", "decoder.4.weight", "decoder.1.weight")
            if name in tensors and tensors[name].ndim == 4
        )
        head["width"] = int(tensors[last].shape[1])
    swin = "backbone_net.patch_embed.projection.weight" in tensors
    network = {"backbone": swin_options(tensors) if swin else _resnet(tensors), "head": head}
    if "auxiliary_decoder.4.weight" in tensors:
        network["auxiliary"] = {"width": int(tensors["auxiliary_decoder.0.weight"].shape[0])}
    return NetworkOptions.model_validate(laid_over(network, changes))


def _family(tensors: dict[str, Tensor]) -> tuple[str, str]:
    """The head, and the context module of IDRNet."""
    names = set(tensors)
    context = "none"
    if any(re.match(r"(coarse_context_module\.parallel|aspp_net\.)", name) for name in names):
        context = "aspp"
    elif any(re.match(r"(coarse_context_module\.branches|ppm_net\.)", name) for name in names):
        context = "ppm"
    if "lateral_convs.0.0.weight" in names:
        return "upernet", context
    if "decoder_stage2.4.weight" in names or "decoder.7.weight" in names or context != "none":
        return {"none": "fcn", "ppm": "pspnet", "aspp": "deeplabv3"}[context], context
    raise ContsegError("weights: no head with the tensor names of ssseg (decoder_stage2.4, decoder.7, ppm_net, aspp_net)")


def _resnet(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The options of the ResNet in a file of the toolbox."""
    depth = sum(bool(re.fullmatch(r"backbone_net\.layer3\.\d+\.conv1\.weight", name)) for name in tensors)
    if depth not in (6, 23) or "backbone_net.layer3.0.conv3.weight" not in tensors:
        raise ContsegError(f"weights: layer3 has {depth} blocks; supported: ResNet-50 (6), ResNet-101 (23)")
    return {
        "name": {6: "resnet50", 23: "resnet101"}[depth],
        "stem": "deep" if "backbone_net.stem.0.weight" in tensors else "plain",
        "slope": 0.0,
        "contracted": True,
        "output_stride": 8,
    }
