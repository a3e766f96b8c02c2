"""Open models of other libraries from their files: transformers, segmentation_models.pytorch, torchvision.

Nothing is downloaded, and no code in a file is executed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from contseg.data.classes import ClassTable
from contseg.data.datasets.class_list import is_background
from contseg.data.lists import read_list
from contseg.data.open import DATASETS
from contseg.digest import file_sha256
from contseg.errors import ContsegError
from contseg.interop.checkpoint import read_tensors
from contseg.interop.foreign import LOOKED_FOR
from contseg.interop.hf import open_hf, read_json, weights_of
from contseg.interop.segmenter_file import has_header
from contseg.models.adopted.libraries import KNOWN, make_module, recognised, strip, torchvision_function
from contseg.models.adopted.segmenter import segmenter_around
from contseg.models.segmenter import Segmenter

CONFIG = "config.json"


def open_foreign(
    path: Path | str, classes: ClassTable | Sequence[str] | None = None
) -> tuple[Segmenter, ClassTable, dict[str, Any]]:
    """Open a model of another library as a segmenter, in eval mode.

    Args:
        path: a folder of transformers or smp (`save_pretrained`), or a file with a state dict of torchvision.
        classes: one per output; default: `id2label` of transformers, or `classes.txt` (a name per line) or `classes.json`
            next to the weights; 21 outputs of torchvision are those of VOC.

    Returns:
        the segmenter, its classes in output order, and its source: library, architecture, file, its SHA-256, `notes`, and
        changes to the default inference under `inference`.

    Raises:
        ContsegError: the path contains no model of these libraries (names what was searched for), a class has no name, the
            weights do not fit, or the library is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise ContsegError(f"{path}: not found; give {LOOKED_FOR}")
    try:
        if path.is_dir():
            return _open_folder(path, classes)
        return _open_state_dict(path, classes)
    except ContsegError as error:
        message = str(error)
        raise ContsegError(message if message.startswith(str(path)) else f"{path}: {message}") from None


def is_foreign(path: Path) -> bool:
    """Whether a folder has a configuration of transformers or smp, or a file the tensor names of torchvision."""
    if path.is_dir():
        return (path / CONFIG).is_file()
    if not path.is_file() or has_header(path):
        return False
    try:
        torchvision_function(read_tensors(path))
    except ContsegError:
        return False
    return True


def _open_folder(folder: Path, classes: ClassTable | Sequence[str] | None) -> tuple[Segmenter, ClassTable, dict[str, Any]]:
    if not (folder / CONFIG).is_file():
        raise ContsegError(f"{folder}: contains no model; give {LOOKED_FOR}")
    config = read_json(folder / CONFIG)
    if config.get("_model_class") in KNOWN["smp"]:
        return _open_smp(folder, config, classes)
    found = [str(name) for name in config.get("architectures") or [config.get("_model_class", "no architecture")]]
    if found[0] not in KNOWN["transformers"]:
        known = ", ".join(name.removesuffix("ForSemanticSegmentation") for name in KNOWN["transformers"])
        raise ContsegError(
            f"{folder / CONFIG}: {found[0]} is not supported; known are {known} of transformers, and"
            f" {', '.join(KNOWN['smp'])} of smp; adopt others in Python with contseg.adopt"
        )
    module, labels, about = open_hf(folder, config, found[0])
    names = classes or _names_beside(folder) or labels
    return _finished(module, names, weights_of(folder) or folder, about)


def _open_smp(
    folder: Path, config: dict[str, Any], classes: ClassTable | Sequence[str] | None
) -> tuple[Segmenter, ClassTable, dict[str, Any]]:
    file = folder / "model.safetensors"
    if not file.is_file():
        raise ContsegError(f"{file}: not found; save the model with save_pretrained, which writes safetensors")
    module = make_module("smp", config["_model_class"], config)
    _load(module, {name: value for name, value in read_tensors(file).items() if not name.startswith("classification_head.")})
    notes = ["config.json has no normalisation; ImageNet's mean and standard deviation are used"]
    separate = config.get("activation") in ("sigmoid", "logsigmoid") and config.get("classes", 1) > 1
    decision = {"decision": "sigmoid"} if separate else {}
    return _finished(module, classes or _names_beside(folder), file, {"notes": notes, "network": decision})


def _open_state_dict(path: Path, classes: ClassTable | Sequence[str] | None) -> tuple[Segmenter, ClassTable, dict[str, Any]]:
    tensors = {name: value for name, value in read_tensors(path).items() if not name.startswith("aux_classifier.")}
    try:
        function = torchvision_function(tensors)
    except ContsegError as error:
        raise ContsegError(f"{path}: {error}; give {LOOKED_FOR}") from None
    outputs = len(tensors[f"{KNOWN['torchvision'][function][-1]}.weight"])
    module = make_module("torchvision", function, {"num_classes": outputs})
    _load(module, tensors)
    notes, names = [], classes or _names_beside(path.parent)
    if names is None and outputs == 21:
        names = DATASETS["voc"].classes
        notes = ["21 outputs without a class list: the classes of VOC are assumed; write others to classes.txt"]
    return _finished(module, names, path, {"notes": notes})


def _load(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load tensors into a module.

    Raises:
        ContsegError: a tensor is missing or unexpected, or has another shape.
    """
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(own.keys() | found.keys()):
        if own.get(name) != found.get(name):
            needed, there = own.get(name, "nothing"), found.get(name, "nothing")
            raise ContsegError(f"tensor {name}: the file contains {there}, the network needs {needed}")
    module.load_state_dict(tensors)


def _names_beside(folder: Path) -> list[str] | None:
    """The names in `classes.txt` or `classes.json` of a folder, or None."""
    if (folder / "classes.txt").is_file():
        return read_list(folder / "classes.txt")
    path = folder / "classes.json"
    if not path.is_file():
        return None
    content = read_json(path)
    if isinstance(content, Mapping):
        content = [
            content[key] for key in sorted(content, key=lambda key: (not key.isdigit(), int(key) if key.isdigit() else 0))
        ]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise ContsegError(f"{path}: expected a list of class names, or a mapping from ids to names")
    return content


def _finished(
    module: nn.Module, classes: ClassTable | Sequence[str] | None, file: Path, about: dict[str, Any]
) -> tuple[Segmenter, ClassTable, dict[str, Any]]:
    """The segmenter around a module, its classes, and its source."""
    strip(module)
    known = recognised(module) | about.pop("backbone", {})
    if classes is None:
        raise ContsegError(
            f"{file}: has no class names; write the name of each output to {file.parent / 'classes.txt'}, one per line,"
            " background first"
        )
    table = classes if isinstance(classes, ClassTable) else class_table(classes)
    segmenter = segmenter_around(module, known, table.names, **about.pop("network", {}))
    source = {"library": known["library"], "architecture": known["architecture"], "file": str(file)}
    return segmenter.eval(), table, source | {"sha256": file_sha256(file)} | about


def class_table(names: Sequence[str]) -> ClassTable:
    """The table of the classes of a model; the first is background if it has the name of a background.

    Example:
        >>> class_table(["__background__", "cat"]).background, class_table(["wall", "sky"]).background
        ('annotated', 'none')
    """
    return ClassTable.of(names, "annotated" if is_background(names[0]) else "none")
