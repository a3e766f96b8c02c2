"""`contseg export`."""

import time
from pathlib import Path
from typing import Any, Literal

from contseg.cli.console import console, progress_bar
from contseg.errors import ContsegError
from contseg.evaluation.options import InferenceOptions
from contseg.interop.hf_export import export_hf
from contseg.interop.onnx import export_onnx
from contseg.interop.torch_export import export_torch
from contseg.recipes.models import open_model
from contseg.report.log import duration

Format = Literal["onnx", "torch", "hf"]


def run_export(model: Path, to: Format, out: Path, argmax: bool, tile: int | None, resolution: float | None) -> None:
    """Export a model, compare the result with PyTorch, and print its input and output.

    Raises:
        ContsegError: the model cannot be opened or exported, the result differs, or `out` exists. Nothing is written then.
    """
    if out.exists():
        raise ContsegError(f"{out}: exists; choose another path with --out")
    opened = open_model(model)
    options: dict[str, Any] = {"argmax": argmax, "tile": tile, "resolution": resolution}
    if to == "hf" and (given := [name for name, value in options.items() if value]):
        raise ContsegError(f"--{given[0]}: is not an option of --to hf; remove it, or use --to onnx")
    write: Any = {"onnx": export_onnx, "torch": export_torch, "hf": export_hf}[to]
    start = time.perf_counter()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with progress_bar("exporting") as progress:
            difference = write(
                out,
                opened.segmenter,
                opened.classes,
                source=opened.source,
                on_stage=progress,
                **({} if to == "hf" else options),
            )
    except OSError as error:
        raise ContsegError(f"{out}: cannot be written ({error.strerror or error}); choose another path with --out") from None
    notes = list(opened.notes)
    if to != "hf" and opened.inference.options != InferenceOptions():
        notes.append("the windows, scales and sizes of contseg predict are not exported; images are used as they are")
    if to != "hf" and opened.segmenter.options.has_owners:
        notes.append("network.head.decision is not exported: scores are sums over queries, by which no pixel is undecided")
    for note in notes:
        console.print(f"note: {note}", soft_wrap=True, highlight=False)
    size = "any size" if tile is None else f"{tile} x {tile} pixels"
    result = "ids of the classes, uint8 (B, H, W)" if argmax else f"{len(opened.classes)} scores, float32 (B, K, H, W)"
    lines = [f"input: RGB from 0 to 255, float32 (B, 3, H, W), {size}; normalised inside", f"output: {result}"]
    if to == "hf":
        lines = [f"classes: {len(opened.classes)}, in config.json"]
    console.print(
        "\n".join([*lines, f"checked: differs from PyTorch by at most {difference:.0e}", f"written: {out}"]),
        soft_wrap=True,
        highlight=False,
    )
    console.print(f"time: {duration(time.perf_counter() - start)}", highlight=False)
