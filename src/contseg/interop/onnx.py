"""Export to ONNX, with metadata for any program and for the plugin Deepness of QGIS."""

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from contseg.atomic import atomic_file
from contseg.data.classes import ClassTable
from contseg.errors import ContsegError
from contseg.interop.exported import CHECKED, INPUT, OUTPUTS, Export, largest_difference, one_line, quiet, traced
from contseg.models.segmenter import Segmenter

LARGEST = 2**31 - 2**24
"""Bytes of weights that fit one ONNX file (protobuf), with room for the graph."""
OVERLAP = 15
"""Overlap of the tiles in QGIS, in percent."""


def export_onnx(
    path: Path | str,
    segmenter: Segmenter,
    classes: ClassTable,
    *,
    argmax: bool = False,
    tile: int | None = None,
    resolution: float | None = None,
    source: dict[str, Any] | None = None,
    on_stage: Callable[[int, int], None] | None = None,
) -> float:
    """Write an ONNX file, after it was compared with PyTorch in onnxruntime; returns the largest difference of a score.

    Input `images` is RGB from 0 to 255, float32 (B, 3, H, W); it is normalised inside. Output is `scores`, float32
    (B, K, H, W), or with `argmax` `ids`, uint8 (B, H, W). Number and size of the images are free, unless `tile` sets the
    size. The metadata contain the classes (`contseg`, JSON) and the keys of Deepness.

    Args:
        segmenter: the segmenter; it is not changed.
        classes: its classes, in output order.
        argmax: ids of the class table, (B, H, W) uint8, in place of scores (B, K, H, W).
        tile: side of the images in pixels; default: images of any size.
        resolution: of the images for which the segmenter was trained, in cm per pixel; only described.
        source: where the segmenter comes from, as values that JSON supports.
        on_stage: called with the number of finished stages and of all, for progress.

    Raises:
        ContsegError: onnx, onnxscript or onnxruntime is not installed, an operator does not exist in ONNX (names it), the
            result differs from PyTorch's, or the weights need more than 2 GiB. No file is written then.

    Example:
        >>> import tempfile, numpy, onnxruntime
        >>> from contseg import ClassTable, NetworkOptions, Segmenter
        >>> segmenter = Segmenter(NetworkOptions(backbone={"name": "resnet18", "width": 4}, head="fcn"), [2])
        >>> path = Path(tempfile.mkdtemp()) / "model.onnx"
        >>> difference = export_onnx(path, segmenter, ClassTable.of(["background", "cat"]))  # doctest: +SKIP
        >>> session = onnxruntime.InferenceSession(path)  # doctest: +SKIP
        >>> session.run(None, {"images": numpy.zeros((1, 3, 80, 99), "float32")})[0].shape  # doctest: +SKIP
        (1, 2, 80, 99)
    """
    export = Export(segmenter, classes, argmax, tile, resolution, source)
    onnxruntime = _library("onnxruntime")
    for name in ("onnx", "onnxscript"):
        _library(name)
    stages = 2 + len(CHECKED)
    stage = on_stage or (lambda done, total: None)
    stage(0, stages)
    network = export.network()
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > LARGEST:
        raise ContsegError(
            f"{path}: the weights need {size / 2**30:.1f} GiB, and an ONNX file is limited to 2; use --to torch"
        )
    with quiet():
        program = traced(network, export.tile)
        stage(1, stages)
        made = _translated(program, OUTPUTS[export.argmax])
    stage(2, stages)
    _finish(made.model, metadata(export))
    with atomic_file(Path(path)) as partial:
        made.save(str(partial), external_data=False)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors are raised
        session = onnxruntime.InferenceSession(str(partial), options, providers=["CPUExecutionProvider"])

        def run(images: Tensor) -> Tensor:
            return torch.from_numpy(session.run(None, {INPUT: images.numpy()})[0])

        return largest_difference(network, run, export.tile, lambda done: stage(2 + done, stages))


def metadata(export: Export) -> dict[str, str]:
    """The metadata of an ONNX file: `contseg` (classes, network, input, output) and the keys of Deepness, all JSON.

    Deepness divides images by 255 and then applies mean and standard deviation; these are set so that this restores values
    from 0 to 255. Its threshold and its median filter are off, so that its result is the class of the highest score.
    """
    deepness: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": dict(enumerate(export.classes.names)),
        "standardization_mean": [0.0, 0.0, 0.0],
        "standardization_std": [1 / 255, 1 / 255, 1 / 255],
        "seg_thresh": 0,
        "seg_small_segment": 0,
        "tiles_overlap": OVERLAP,
    }
    if export.resolution is not None:
        deepness["resolution"] = export.resolution
    if export.tile is not None:
        deepness |= {"tiles_size": export.tile, "tile_size": export.tile}  # documented, and read
    return {key: json.dumps(value) for key, value in deepness.items()} | {"contseg": export.description()}


def _translated(program: torch.export.ExportedProgram, output: str) -> Any:
    """The program in ONNX.

    Raises:
        ContsegError: an operator does not exist in ONNX (names it).
    """
    try:
        made = torch.onnx.export(
            program, dynamo=True, input_names=[INPUT], output_names=[output], verbose=False, external_data=False
        )
    except Exception as error:  # the exporter raises errors of many kinds, with the reason in the first of the chain
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(cause)
        missing = re.search(r"No ONNX function found for .*?op='([\w.]+)'", " ".join(map(str, chain)))
        if missing:
            raise ContsegError(f"export: ONNX has no operator for {missing[1]}; use --to torch, or another part") from None
        raise ContsegError(f"export: cannot be translated to ONNX ({one_line(chain[-1])}); use --to torch") from None
    assert made is not None
    return made


def _finish(model: Any, entries: dict[str, str]) -> None:
    """Add metadata, name the free axes, and remove the notes of the exporter, which contain paths of source files."""
    model.metadata_props.clear()
    model.metadata_props.update(entries)
    model.producer_name = "contseg"
    names: dict[str, str] = {}
    for axis, name in zip(model.graph.inputs[0].shape.dims, ("batch", "channels", "height", "width"), strict=True):
        if not isinstance(axis, int):
            names[str(axis.value)] = name
    for value in (*model.graph.inputs, *model.graph.outputs):
        for place, axis in enumerate(value.shape.dims):
            if not isinstance(axis, int) and str(axis.value) in names:
                value.shape[place] = names[str(axis.value)]
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
            if not value.is_graph_output():
                value.shape = None  # sizes under other names; runtimes infer them


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ContsegError(f"{name} is not installed, and an export needs it; pip install 'contseg[export]'") from None
