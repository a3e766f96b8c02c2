"""Export of adopted models of transformers to a folder that transformers opens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contseg.atomic import atomic_folder, write_text
from contseg.data.classes import ClassTable
from contseg.errors import ContsegError
from contseg.interop.exported import CHECKED, TOLERANCE, one_line
from contseg.interop.hf import PREPROCESSING, quiet
from contseg.models.adopted.libraries import hf_config, import_transformers
from contseg.models.adopted.options import AdoptedOptions
from contseg.models.adopted.segmenter import AdoptedSegmenter
from contseg.models.segmenter import Segmenter

PROCESSORS = {
    "SegformerForSemanticSegmentation": "SegformerImageProcessor",
    "UperNetForSemanticSegmentation": "SegformerImageProcessor",
    "BeitForSemanticSegmentation": "BeitImageProcessor",
    "DPTForSemanticSegmentation": "DPTImageProcessor",
}
"""Image processor of each architecture."""


def export_hf(
    folder: Path | str,
    segmenter: Segmenter,
    classes: ClassTable,
    *,
    source: dict[str, Any] | None = None,
    on_stage: Callable[[int, int], None] | None = None,
) -> float:
    """Write a folder that `from_pretrained` of transformers opens; the model must have come from there.

    The convolutions of all steps become one. The folder has `config.json` (with the class names), `model.safetensors` and
    `preprocessor_config.json`. It is opened with transformers and compared before it appears.

    Args:
        classes: in output order.
        source: of the segmenter; its `inference` has the size to which images are resized.
        on_stage: called with the number of finished stages and of all, for progress.

    Returns:
        the largest difference of a logit.

    Raises:
        ContsegError: the network is not from transformers, or has more than transformers can represent (an output
            "unknown", layers before the convolutions of the steps); the folder exists; or the result differs.
    """
    folder, parts = Path(folder), segmenter.options.backbone
    if (
        not isinstance(segmenter, AdoptedSegmenter)
        or not isinstance(parts, AdoptedOptions)
        or parts.library != "transformers"
    ):
        raise ContsegError(
            f"{folder}: only a network of transformers can be saved for transformers, and this one is {_name(segmenter)};"
            " use --to onnx or --to torch"
        )
    if segmenter.options.unknown or {name for name, _ in segmenter.classifier.named_children()} - {"later"} != {"steps"}:
        what = 'an output "unknown"' if segmenter.options.unknown else "a classifier of several layers"
        raise ContsegError(
            f"{folder}: transformers has no {parts.architecture} with {what}; use --to onnx or --to torch, or extend the"
            " model with --method gaussian-columns, which keeps one convolution"
        )
    if folder.exists():
        raise ContsegError(f"{folder}: exists; choose another folder with --out")
    stage, sizes = on_stage or (lambda done, total: None), [parts.size] if parts.size else [size[1:] for size in CHECKED]
    stages = 1 + len(sizes)
    stage(0, stages)
    kind = getattr(import_transformers(), parts.architecture)
    differences = []
    with atomic_folder(folder) as partial, quiet():
        merged: Any = _merged(kind, segmenter, classes, parts)
        merged.save_pretrained(partial)
        processor = _preprocessing(segmenter, parts, (source or {}).get("inference", {}))
        write_text(partial / PREPROCESSING[0], json.dumps(processor, indent=2))
        stage(1, stages)
        network = kind.from_pretrained(partial, local_files_only=True).eval()
        for done, size in enumerate(sizes):
            differences.append(_difference(segmenter, network, size))
            if not differences[-1] <= TOLERANCE:
                raise ContsegError(
                    f"{folder}: opened with transformers, scores differ by {differences[-1]:.1e}; nothing was written"
                )
            stage(2 + done, stages)
    return max(differences)


def _name(segmenter: Segmenter) -> str:
    backbone, head = segmenter.options.backbone, segmenter.options.head
    if isinstance(backbone, AdoptedOptions):
        return f"{backbone.architecture or 'a module'} of {backbone.library or 'its own'}"
    return f"{backbone.name} with {head.name}"


def _merged(kind: Any, segmenter: AdoptedSegmenter, classes: ClassTable, parts: AdoptedOptions) -> nn.Module:
    """The network as transformers makes it, with the convolutions of all steps as one."""
    labels = dict(enumerate(classes.names))
    config = {key: value for key, value in hf_config(parts.config).items() if key != "num_labels"}
    network = kind(kind.config_class(**config, id2label=labels, label2id={name: key for key, name in labels.items()}))
    steps: list[Any] = list(segmenter.classifier.steps)
    (last,) = parts.classifier
    own = segmenter.backbone.network.state_dict()
    merged = {name: torch.cat([getattr(step, name) for step in steps]).detach() for name in ("weight", "bias")}
    try:
        network.load_state_dict(dict(own) | {f"{last}.{name}": value for name, value in merged.items()})
    except RuntimeError as error:
        raise ContsegError(f"export: {parts.architecture} of this transformers is another one ({one_line(error)})") from None
    return network.eval()


def _preprocessing(segmenter: Segmenter, parts: AdoptedOptions, inference: dict[str, Any]) -> dict[str, Any]:
    """The content of `preprocessor_config.json`."""
    size: dict[str, int] = {}
    if sides := parts.size or inference.get("resize"):
        size = {"height": sides[0], "width": sides[1]}
    elif sides := inference.get("fit"):
        size = {"shortest_edge": min(sides), "longest_edge": max(sides)}
    return {
        "image_processor_type": PROCESSORS[parts.architecture],
        "do_resize": bool(size),
        **({"size": size} if size else {}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(segmenter.options.mean),
        "image_std": list(segmenter.options.std),
    }


@torch.no_grad()
def _difference(segmenter: Segmenter, network: Any, size: tuple[int, ...]) -> float:
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 255
    normed: Tensor = segmenter.normalise(images.to(segmenter.mean.device))
    expected, found = segmenter(normed).logits.cpu(), network(normed.cpu()).logits
    if expected.shape != found.shape:
        return float("inf")
    return float((segmenter.scores(expected) - segmenter.scores(found)).abs().max())
