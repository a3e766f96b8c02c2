"""Folders of transformers: the network, its class names and its preprocessing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from contseg.data.lists import read_text
from contseg.errors import ContsegError
from contseg.models.adopted.libraries import hf_config, import_transformers
from contseg.parsing import parse_json

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PREPROCESSING = ("preprocessor_config.json", "processor_config.json")
LARGE = 1 << 20
"""A longer side without effect, where only the shorter one is fixed."""


def open_hf(folder: Path, config: dict[str, Any], architecture: str) -> tuple[nn.Module, list[str], dict[str, Any]]:
    """The network of a folder of `save_pretrained`, its class names, and keys for `open_foreign`.

    Args:
        config: content of `config.json`.
        architecture: a key of `HF_CLASSIFIERS`.

    Raises:
        ContsegError: there are no safetensors, they do not fit the configuration, or transformers is not installed.
    """
    if weights_of(folder) is None:
        raise ContsegError(
            f"{folder / WEIGHTS[0]}: not found; pickled weights are not read, as they could run code: save the model with"
            " save_pretrained of transformers 4.35 or newer"
        )
    kind = getattr(import_transformers(), architecture)
    settings = kind.config_class(**hf_config(config), id2label=_labels(config))
    try:
        with quiet():
            module, found = kind.from_pretrained(
                folder, config=settings, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise ContsegError(
            f"{folder}: transformers cannot read the weights ({' '.join(str(error).split())[:160]})"
        ) from None
    extra = [name for name in found["unexpected_keys"] if not name.startswith("auxiliary_head.")]
    for name in (*found["missing_keys"], *(str(one) for one in found["mismatched_keys"]), *extra):
        where = "is not in the file" if name in found["missing_keys"] else "does not fit"
        raise ContsegError(f"{folder}: tensor {name} {where}; config.json and weights are not of the same model")
    labels = {int(key): str(name) for key, name in settings.id2label.items()}
    return (
        module,
        [labels[key] for key in sorted(labels)],
        preprocessing(folder, architecture, bool(config.get("is_hybrid"))),
    )


def weights_of(folder: Path) -> Path | None:
    """The safetensors of a folder, or the index of several; None if there are none."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and reports of transformers; what they contain is checked here."""
    logging = import_transformers().utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _labels(config: dict[str, Any]) -> dict[int, str]:
    labels = config.get("id2label")
    if not isinstance(labels, dict):
        count = config.get("num_labels", 2)
        return {number: f"LABEL_{number}" for number in range(count)}
    return {int(key): str(name) for key, name in labels.items()}


def preprocessing(folder: Path, architecture: str, hybrid: bool = False) -> dict[str, Any]:
    """The preprocessing of a folder: keys of the network (mean, std), of its backbone (size) and of inference (resize).

    Images are resized by networks of a fixed size, in every use. Other networks read images of any size; the size in the
    file is then only that of the default inference, as in transformers.

    Args:
        architecture: a key of `HF_CLASSIFIERS`.
        hybrid: a DPT with a convolutional stem, which like a BEiT has the size of its configuration.
    """
    path = next((folder / name for name in PREPROCESSING if (folder / name).is_file()), None)
    if path is None:
        return {"notes": [f"no {PREPROCESSING[0]}: ImageNet's mean and standard deviation are used"]}
    content = read_json(path)
    content = content.get("image_processor", content)
    about: dict[str, Any] = {"notes": [], "network": _normalisation(content)}
    sides = _sides(content.get("size")) if content.get("do_resize", True) else {}
    if architecture.startswith("Beit") or hybrid:
        return about
    if "resize" in sides and architecture.startswith("DPT"):
        about["backbone"] = {"size": sides["resize"]}
    elif sides:
        about["inference"] = sides | {"antialias": True}
    return about


def _normalisation(content: dict[str, Any]) -> dict[str, list[float]]:
    """`mean` and `std` of RGB in [0, 1]."""
    factor = 255 * float(content.get("rescale_factor", 1 / 255)) if content.get("do_rescale", True) else 255.0
    mean, std = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    if content.get("do_normalize", True):
        mean, std = content.get("image_mean", mean), content.get("image_std", std)
    return {"mean": [value / factor for value in mean], "std": [value / factor for value in std]}


def _sides(size: Any) -> dict[str, list[int]]:
    """The size of a preprocessing as keys of `InferenceOptions`: both sides, or the shorter one."""
    if isinstance(size, int):
        return {"resize": [size, size]}
    if isinstance(size, dict) and {"height", "width"} <= size.keys():
        return {"resize": [size["height"], size["width"]]}
    if isinstance(size, dict) and "shortest_edge" in size:
        return {"fit": [size.get("longest_edge", LARGE), size["shortest_edge"]]}
    return {}


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ContsegError: it is not JSON.
    """
    return parse_json(read_text(path), str(path))
