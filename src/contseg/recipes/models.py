"""Open the MODEL of a command: a run, a segmenter, or a model of another library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from contseg.data.classes import ClassTable
from contseg.data.open import DATASETS
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.evaluation.inference import Inference
from contseg.interop.adopted import is_foreign, open_foreign
from contseg.interop.convert import named_table
from contseg.interop.foreign import LOOKED_FOR
from contseg.interop.pretrained import STATISTICS, WEIGHTS, is_pretrained, open_segmenter, source_of
from contseg.models.segmenter import Segmenter
from contseg.recipes.read import parse_recipe, read_run
from contseg.recipes.recipe import Recipe


@dataclass(frozen=True)
class Opened:
    """An opened model.

    Args:
        segmenter: in eval mode.
        classes: in output order.
        kind: what the path is: `run` (or a step of one), `segmenter`, or `foreign`.
        source: where the segmenter comes from, as values that JSON supports.
        file: the file or folder that was read.
        inference: how to predict: as in the run of the segmenter, else a single view of the whole image; a model of
            transformers resizes images as its own preprocessing does.
        recipe: of the run.
        statistics: the file with the sums of method `gaussian`, or None.
        notes: findings that a command prints.

    Example:
        >>> import tempfile
        >>> from contseg import NetworkOptions, save_pretrained
        >>> segmenter = Segmenter(NetworkOptions(backbone={"name": "resnet18", "width": 4}), [3])
        >>> folder = save_pretrained(tempfile.mkdtemp(), segmenter, ClassTable.of(["background", "cat", "dog"]))
        >>> opened = open_model(folder)
        >>> opened.kind, opened.classes.names, opened.inferring({"flip": True}).options.flip
        ('segmenter', ('background', 'cat', 'dog'), True)
    """

    segmenter: Segmenter
    classes: ClassTable
    kind: Literal["run", "segmenter", "foreign"]
    source: dict[str, Any]
    file: Path
    inference: Inference
    recipe: Recipe | None = None
    statistics: Path | None = None
    notes: tuple[str, ...] = ()

    def inferring(self, changes: Mapping[str, Any]) -> Inference:
        """The inference of the model with changes, keys as in `InferenceOptions`.

        Windows replace the resizing of images that comes with a model of another library.

        Raises:
            ContsegError: a change has the wrong type (names which).
        """
        settings = self.inference.options.model_dump(mode="json")
        if "mode" in changes:
            settings = {key: value for key, value in settings.items() if key not in self.source.get("inference", {})}
        return _inference(settings | dict(changes), self.recipe, self.classes)


def open_model(path: Path | str, device: str = "cpu", classes: ClassTable | Sequence[str] | str | None = None) -> Opened:
    """Open a model: a run (its last finished step), the folder of a step, a segmenter (folder or file), or a model of
    another library, see `open_foreign`.

    Args:
        device: of the segmenter.
        classes: of a model of another library: one per output, or a dataset or a list file as `named_table` reads it.

    Raises:
        ContsegError: there is no such model (names what was searched for), or it cannot be read.
    """
    file = find_model(Path(path))
    recipe = run_recipe(file)  # also imports the plugins of the run, which the network may need
    kind: Literal["run", "segmenter", "foreign"] = (
        "foreign" if is_foreign(file) else "segmenter" if recipe is None else "run"
    )
    if kind == "foreign":
        segmenter, table, source = open_foreign(file, named_table(classes) if isinstance(classes, str) else classes)
    else:
        (segmenter, table), source = open_segmenter(file), source_of(file)
    settings = source.get("inference", {}) if recipe is None else recipe.evaluation.model_dump(mode="json")
    statistics = (file if file.is_dir() else file.parent) / STATISTICS
    return Opened(
        segmenter.to(device),
        table,
        kind,
        source,
        file,
        _inference(settings, recipe, table),
        recipe,
        statistics if statistics.is_file() else None,
        tuple(source.get("notes", ())) if kind == "foreign" else (),
    )


def find_model(path: Path) -> Path:
    """The file or folder of a model: the path itself, or the segmenter of a step, or of the last finished step of a run.

    Raises:
        ContsegError: the path does not exist, no step of the run is finished, or the folder contains no model (lists what a
            model may be).
    """
    if not path.exists():
        raise ContsegError(f"{path}: not found; give {LOOKED_FOR}")
    if not path.is_dir() or is_pretrained(path) or is_foreign(path):
        return path
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    if not (path / "recipe.yaml").is_file():
        raise ContsegError(f"{path}: contains no model; give {LOOKED_FOR}")
    finished = len(Run(path).confusions())
    if not finished:
        raise ContsegError(f"{path}: no step of this run is finished yet; finish it with --resume {path}")
    return Run(path).segmenter_path(finished - 1)


def run_recipe(file: Path) -> Recipe | None:
    """The recipe of the run that contains a segmenter, RUN/steps/NN/segmenter.safetensors; None if it is not in a run."""
    own = file.resolve().parent.parent.parent / "recipe.yaml"
    return read_run(own) if file.is_file() and own.is_file() else None


def _inference(settings: Mapping[str, Any], recipe: Recipe | None, classes: ClassTable) -> Inference:
    content = {"name": "predict", "data": {"dataset": "folder"}, "evaluation": dict(settings)}
    options = parse_recipe(content, "predict").evaluation
    mirror = DATASETS[recipe.data.dataset].mirror if recipe and options.flip else ()
    return Inference.of(options, mirror, classes.ids)
