"""Import libraries that depend on torchvision."""

import importlib
from types import ModuleType
from typing import Any

import torch

from contseg.errors import ContsegError

_kept: list[Any] = []


def import_library(name: str, extra: str) -> ModuleType:
    """Import a module on first use.

    A torchvision that was built for CUDA cannot be imported with a PyTorch for CPU ("operator torchvision::nms does not
    exist"), although its operators are not used here. Only in this case, the schemas of the operators that it requires are
    declared, and the import is repeated.

    Args:
        extra: of `contseg` that installs the library.

    Raises:
        ContsegError: the library is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name != package:
            raise
        raise ContsegError(
            f"{package} is not installed, and this network needs it; pip install 'contseg[{extra}]'"
        ) from None
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _kept:
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)  # the declaration is removed with this object
    return importlib.import_module(name)
