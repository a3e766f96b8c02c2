"""A segmenter as one file: safetensors, with network, classes and source in the header. Loading executes nothing."""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from contseg.data.classes import ClassTable
from contseg.errors import ContsegError
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

HEADER = "contseg"


def save_segmenter(path: Path, segmenter: Segmenter, classes: ClassTable, source: dict[str, Any] | None = None) -> None:
    """Write a segmenter; the file appears whole or not at all.

    Args:
        classes: in output order.
        source: where it comes from (recipe, step, plan hash), kept in the header.
    """
    header = {
        "network": segmenter.options.model_dump(),
        "widths": segmenter.widths,
        "classes": {
            "names": classes.names,
            "ids": classes.ids,
            "colours": classes.colours,
            "background": classes.background,
        },
        "source": source or {},
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in segmenter.state_dict().items()}
    partial = path.with_name(f"{path.name}.partial")
    save_file(tensors, partial, metadata={HEADER: json.dumps(header)})
    os.replace(partial, path)


def load_segmenter(path: Path) -> tuple[Segmenter, ClassTable]:
    """Read a segmenter and its classes (in output order), in eval mode on CPU.

    Raises:
        ContsegError: the file is missing, truncated, of another kind, or its tensors do not fit its header.
    """
    if not path.is_file():
        raise ContsegError(f"{path}: segmenter file not found")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        # JSON knows no tuples, so numbers come back as lists; strict mode would refuse them
        options = NetworkOptions.model_validate_json(json.dumps(header["network"]))
        segmenter = Segmenter(options, header["widths"])
        segmenter.load_state_dict(tensors)
        table = header["classes"]
        classes = ClassTable(
            tuple(table["names"]), tuple(table["ids"]), tuple(tuple(c) for c in table["colours"]), table["background"]
        )
    except KeyError:
        raise ContsegError(f"{path}: no segmenter of contseg (its header is missing); convert it first") from None
    except (SafetensorError, OSError, ValueError, ValidationError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ContsegError(f"{path}: cannot be read as a segmenter ({reason}); the file is damaged") from None
    return segmenter.eval(), classes
