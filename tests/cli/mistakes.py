"""Mistakes in what users give to a command, by group. Each is refused in one line; docs/errors.md lists them."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import typer

from contseg.cli.main import app
from contseg.data.open import DATASETS
from contseg.methods.registry import METHODS
from tests.cli.spoilt import DEVICES, FILES, MODELS, PIPES
from tests.cli.wrong_values import NAMED, NUMBERS, OVERRIDES, TOGETHER, WORDS


@dataclass(frozen=True)
class Mistake:
    """A command that is refused.

    Args:
        group: heading in the document.
        words: the arguments, relative to a folder with the files of `tests.cli.spoilt`.
        names: the key, option or file that the error names.
    """

    group: str
    words: tuple[str, ...]
    names: str

    def __str__(self) -> str:
        return shlex.join(self.words)


OPTIONS: dict[str, tuple[str, ...]] = {
    "sweep digits/mib_5-1 --out out --jobs": ("0", "-1", "2000", "many"),
    "sweep digits/mib_5-1 --out out --seeds": ("", "a", "-1", "0", "0.5", "1,,b", "9" * 30, "2000", "1,1"),
    "sweep digits/mib_5-1 --out out --orders": ("", "0", "-1", ",", "2000", "own,own"),
    "sweep digits/mib_5-1 --out out --vary": (
        "training.lr",
        "training.lr=",
        "=1",
        "training.lr={",
        "data.path=a,b",
        "training.lr=1,1.0",
    ),
    "sweep digits/mib_5-1 --out out --with": ("", "joined", "joint,joint"),
    "cost digits/mib_5-1 --throughput": ("0", "-1", "nan", "inf", "many"),
    "cost digits/mib_5-1 --jobs": ("0", "2000"),
    "cost digits/mib_5-1 --device": ("gpu",),
    "train digits/mib_5-1 --out out --log": ("xml",),
    "sweep digits/mib_5-1 --out out --on": ("cloud",),
    "sweep digits/mib_5-1 --out out --on slurm --slurm": (
        "gpu",
        "time=",
        "time=long",
        "=1",
        "time=4:00:00,gres",
        "time=1,time=2",
    ),
    "tune digits/plop_5-1 --out out --on seed:1 --space": (
        "",
        "method.pod",
        "method.pod=1",
        "method.pod=1:0",
        "method.pod=0:1:log",
        "method.pod=0:inf",
        "method.pod={1}",
        "method.pod={a,[}",
        "training.seed=0:9",
        "scenario.split={5-1,5-5}",
    ),
    "tune digits/plop_5-1 --out out --space method.pod=0:1 --on": ("own", "2"),
    "tune digits/plop_5-1 --out out --space method.pod=0:1 --on seed:1 --trials": ("0", "many"),
    "tune digits/plop_5-1 --out out --space method.pod=0:1 --on seed:1 --round": ("0", "2000"),
    "tune digits/plop_5-1 --out out --space method.pod=0:1 --on seed:1 --goal": ("miou",),
    "tune digits/plop_5-1 --out out --space method.pod=0:1 --on seed:1 --seeds": ("0", "1,,b"),
    "tune digits/plop_5-1 --out out --space method.pod=0:1 --on seed:1 --search-seeds": ("x",),
    "tune digits/plop_5-1 --out out --space method.pod=0:1 --on seed:1 --sampler-seed": ("-1",),
    "tune digits/plop_5-1 --out out --space method.pod=0:1 --on seed:1 --slurm": ("gpu", "time=long"),
    "demo digits --methods": ("plopp", "mib,plopp"),
    "predict model images --slide": ("0", "-1", "100000", "wide"),
    "predict model images --scales": ("", "one", "nan", "1,inf", "1,,2"),
    "predict model images --bands": ("", "red", "nan", "1,inf"),
    "predict model images --range": ("", "low", "nan,1", "0,inf"),
    "predict model images --format": ("jpeg", "PNG"),
    "convert notes.txt --classes voc --out out --from": ("mibb",),
    "export model --out out.onnx --to": ("tflite", "ONNX"),
    "export model --out out.onnx --tile": ("0", "-1", "1.5", "100000"),
    "export model --out out.onnx --resolution": ("many",),
    "models resnet18 --classes": ("0", "-1", "1.5", "1000000000"),
    "models resnet18 --crop": ("0", "-1", "1.5", "1000000000", "8"),
    "dry-run digits/mib_5-1 --processes": ("0", "-1", "2000", "many"),
    "extend model --data images --out out --minutes": ("-1", "nan", "inf", "many"),
    "extend model --data images --out out --seed": ("-1", "0.5", "1e30"),
    "extend model --data images --out out --unlabelled": ("nothing",),
    "extend model --data images --out out --classes": ("", ","),
    "evaluate model --step": ("-1", "1.5", "last"),
    "explain empty --class star --step": ("-1", "last"),
    "explain empty --class star --images": ("0", "-1", "many"),
    "explain empty --class star --projection": ("umap",),
    "prepare isprs --out out --potsdam empty --patch": ("0", "-1", "1.5", "100000"),
    "prepare isprs --out out --potsdam empty --workers": ("0", "2000"),
    "data check digits --workers": ("0", "-1", "2000"),
    "data extract digits --class five --out out --images": ("0", "-1", "1.5", "10000000"),
    "table empty --out": ("table.txt",),
    "recipes --dataset": ("vocc",),
    "recipes --system": ("plopp",),
    "plan digits/mib_5-1 --plugin": ("missing.py", "no_such_module_at_all", "notes.txt"),
}
"""Values of each option of the command line that are refused."""

COMMANDS: tuple[tuple[str, str], ...] = (
    ("trian", "trian"),
    ("--versoin", "--versoin"),
    ("data chekc", "chekc"),
    ("train", ""),
    ("train digits/plop_51", "digits/plop_51"),
    ("train mib", "mib"),
    ("train missing.yaml", "missing.yaml"),
    ("plan digits/plop_51", "digits/plop_51"),
    ("dry-run digits/plop_51", "digits/plop_51"),
    ("dry-run voc/plopp*", "voc/plopp*"),
    ("recipes show digits/plop_51", "digits/plop_51"),
    ("demo mars", "mars"),
    ("cost digits/plop_51", "digits/plop_51"),
    ("cost training.lr=1", "cost"),
    ("cost empty", "empty"),
    ("sweep --out out", "recipe"),
    ("sweep empty --out out", "empty"),
    ("sweep recipe.yaml empty --out out", "recipe.yaml"),
    ("sweep missing/sweep.yaml", "missing"),
    ("sweep digits/mib_5-1", "--out"),
    ("sweep digits/mib_5-1 --out out --set training.lr=1", "--vary"),
    ("sweep digits/mib_5-1 --out out --workers 1", "--jobs"),
    ("sweep digits/mib_5-1 --out out --vary training.seed=1,2", "--seeds"),
    ("sweep digits/mib_5-1 --out out --vary scenario.order=natural,seed:1", "--orders"),
    ("sweep digits/mib_5-1 --out out --vary training.devices=1,2", "training.devices"),
    ("sweep digits/mib_5-1 --out out --seeds 600 --orders 2", "--yes"),
    ("sweep digits/mib_5-1 --out out --orders backwards", "backwards"),
    ("sweep digits/mib_5-1 --out out --on slurm", "time"),
    ("sweep digits/mib_5-1 --out out --on slurm --slurm time=1", "sbatch"),
    ("sweep digits/mib_5-1 --out out --slurm time=1", "--slurm"),
    ("sweep --status empty", "empty"),
    ("sweep --status missing", "missing"),
    ("sweep --status recipe.yaml", "recipe.yaml"),
    ("sweep digits/gaussian_5-1 --out out --with finetune", "--with finetune"),
    ("sweep globe/finetune_domain --out out --orders 2", "--orders"),
    ("sweep training.lr=1 --out out", "sweep"),
    ("sweep digits/mib_5-1 digits/mib_5-1 --out out", "digits/mib_5-1"),
    ("sweep digits/mib_5-1 training.lr=-1 --out out", "training.lr"),
    ("tune --out out", "recipe"),
    ("tune digits/plop_5-1 digits/mib_5-1 --out out", "recipe"),
    ("tune digits/plop_5-1", "--out"),
    ("tune digits/plop_5-1 --out out", "--on"),
    ("tune digits/plop_5-1 --out out --on seed:1", "--space"),
    ("tune digits/plop_5-1 method.pod=1 --out out --on seed:1 --space method.pod=0:1", "method.pod"),
    ("tune digits/plop_51 --out out --on seed:1 --space method.pod=0:1", "digits/plop_51"),
    ("tune digits/plop_5-1 --out out --on seed:1 --space method.pod=-1:1", "method.pod"),
    ("tune digits/plop_5-1 --out out --on seed:1 --space method.pood=0:1", "method.pood"),
    ("tune digits/plop_5-1 --out out --on backwards --space method.pod=0:1", "backwards"),
    ("tune digits/plop_5-1 --out out --on digits/mib_5-1 --space method.pod=0:1", "digits/mib_5-1"),
    ("tune digits/plop_5-1 --out out --on a/b --space method.pod=0:1", "a/b"),
    ("tune digits/plop_5-1 --out out --on seed:1 --report-on seed:1 --space method.pod=0:1", "seed:1"),
    ("tune digits/plop_5-1 --out out --on seed:1 --report-on a/b --space method.pod=0:1", "a/b"),
    ("tune digits/plop_5-1 --out out --on seed:1 --space method.pod=0:1 --slurm time=1", "sbatch"),
    ("tune missing/tune.yaml", "missing"),
    ("tune empty/tune.yaml", "empty"),
    ("tune newer-tune", "newer-tune/tune.yaml"),
    ("tune wrong-tune", "trails"),
    ("tune tune --seeds 2", "seeds"),
    ("tune digits/plop_5-1 --out tune --on seed:2 --space method.pod=0:1", "tune"),
    ("tune digits/plop_5-1 --out newer-tune --on seed:1 --space method.pod=0:1", "newer-tune/tune.yaml"),
    ("demo digits training.lr=-1 --out out", "training.lr"),
    ("models resnet19", "resnet19"),
    ("models resnet18 deeplabv4", "deeplabv4"),
    ("models resnet18 fcn head.width=0", "head.width"),
    ("models resnet18 fcn head.widht=8", "head"),
    ("models resnet18 fcn head", "head"),
    ("models resnet18 fcn =1", "=1"),
    ("train --resume empty", "empty"),
    ("train --resume missing", "missing"),
    ("train --resume notes.txt", "notes.txt"),
    ("train --resume empty --out out", "--out"),
    ("train --resume empty --overwrite", "--overwrite"),
    ("prepare isprs --out out", "--potsdam"),
    ("prepare isprs --out out --potsdam missing", "missing"),
    ("prepare isprs --out out --potsdam empty", "empty"),
)
"""Commands with a wrong name or without what they need, and what the error names."""

EMPTY = (
    "train", "train recipe.yaml --out", "train recipe.yaml --data", "train --resume", "demo digits --out", "predict",
    "predict model", "predict model images --out", "sweep digits/mib_5-1 --out", "convert",
    "convert notes.txt --classes voc --out", "export model --out", "extend model --out out --data", "evaluate",
    "evaluate model --data", "report", "report empty --out", "explain",
    "explain empty --class", "explain empty --class star --out", "table", "table empty --out", "merge model",
    "forget model --class cat --out", "plan recipe.yaml --draw", "dry-run", "data check folder",
    "data extract digits --class five --out", "prepare isprs --out", "prepare isprs --out out --potsdam",
    "plan recipe.yaml --plugin", "recipes show",
)  # fmt: skip
"""Beginnings of commands, after which an empty word is refused."""

SPECIAL: dict[str, tuple[str, ...]] = {
    "yaml": ("train {}", "plan {}", "dry-run {}"),
    "txt": ("plan recipe.yaml scenario.order={}", "train recipe.yaml --no-cache --out {}", "train --resume {}"),
    "pth": (
        "predict {} images", "evaluate {}", "export {} --out out.onnx", "convert {} --classes voc --out out",
        "train recipe.yaml --no-cache --out out start_from={}", "train recipe.yaml --no-cache --out out backbone_weights={}",
    ),
    "safetensors": ("predict {} images", "extend {} --data images --out out", "report {}"),
    "py": ("plan recipe.yaml --plugin {}",),
}  # fmt: skip
"""Commands that are refused with a pipe or a device of this suffix."""
PIPED = {
    "train --resume piped-run": "recipe.yaml",
    "report piped-run": "recipe.yaml",
    "data check folder piped-coco": "a.json",
    "data check coco-json piped-coco": "piped-coco",
    "data check labelme piped-coco": "a.json",
    "data check folder piped-classes": "classes.txt",
    "prepare isprs --out out --potsdam piped-tiles": "piped-tiles",
}
"""Commands that are refused for a pipe in a folder, and what the error names."""

PLACES = ("notes.txt/run", "loop/run", f"{'n' * 300}")
"""Folders that cannot be made: under a file, under a link that leads back to itself, with too long a name."""


def leaves(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The commands below a group, with their words."""
    for name, inner in group.commands.items():
        yield from leaves(inner, (*words, name)) if hasattr(inner, "commands") else [((*words, name), inner)]


def hyper_parameters() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Method, hyper-parameter, and values that are refused, for the numbers of every method."""
    for name in METHODS:
        hints = get_type_hints(METHODS[name])
        for field in fields(METHODS[name]):
            if field.init and hints[field.name] in (int, float):
                yield name, field.name, (".nan", "-1", "many")


def mistakes() -> Iterator[Mistake]:
    """All mistakes, by group."""
    plan, train = ("plan", "recipe.yaml"), ("train", "recipe.yaml", "--no-cache", "--out", "out")
    for group, table in (("Numbers of a recipe", NUMBERS), ("Words of a recipe", WORDS)):
        for key, values in table.items():
            for value in values:
                start = train if key in ("backbone_weights", "start_from") else plan
                whole = ["scenario.memory.size=4"] if key.startswith("scenario.memory.") else []
                names = NAMED.get(f"{key}={value}", key)
                yield Mistake(group, (*start, *whole, f"{key}={value}"), names)
    for method, key, values in hyper_parameters():
        for value in values:
            words = ("plan", "recipe.yaml", f"method.name={method}", f"method.{key}={value}")
            yield Mistake("Hyper-parameters of methods", words, f"method.{key}")
    for override in OVERRIDES:
        yield Mistake("Changes to a recipe", (*plan, override), override.partition("=")[0])
    for changes, key in TOGETHER.items():
        yield Mistake("Values that do not fit together", (*train, *changes), key)
    for name in FILES:
        for words in (("train",), ("plan",), ("recipes", "show"), ("dry-run",)):
            yield Mistake("Recipe files", (*words, name), name.rpartition("/")[2])
    for text, values in OPTIONS.items():
        *words, option = text.split()
        for value in values:
            yield Mistake("Options of commands", (*words, f"{option}={value}"), option)
    for text, names in COMMANDS:
        yield Mistake("Commands", tuple(text.split()), names)
    for text in EMPTY:
        yield Mistake("Commands", (*text.split(), ""), text.split()[-1])
        if text.split()[-1].startswith("--"):
            yield Mistake("Commands", (*text.split()[:-1], f"{text.split()[-1]}="), text.split()[-1])
    for words, leaf in leaves(typer.main.get_command(app)):
        yield Mistake("Commands", (*words, "--no-such-option"), "--no-such-option")
        if any(parameter.required for parameter in leaf.params):
            yield Mistake("Commands", words, "Missing")
    for dataset in DATASETS:
        if DATASETS[dataset].needs_folder:
            for path in ("missing", "empty", "notes.txt", "loop"):
                yield Mistake("Datasets", ("data", "check", dataset, path), path)
            yield Mistake("Datasets", ("data", "check", dataset), "data.path")
        path = ["empty"] if DATASETS[dataset].needs_folder else []
        yield Mistake("Datasets", ("data", "check", dataset, *path, "bands=[0]"), "data.options.bands")
        yield Mistake("Datasets", ("data", "check", dataset, *path, "range=[2, 1]"), "data.options.range")
    yield Mistake("Datasets", ("data", "check", "vocc"), "vocc")
    for model in MODELS:
        for words in (
            ("predict", model, "images", "--out", "out"),
            ("evaluate", model, "--data", "images"),
            ("export", model, "--out", "out.onnx"),
            ("extend", model, "--data", "images", "--out", "out"),
            ("forget", model, "--class", "cat", "--out", "out"),
            ("merge", model, model, "--out", "out"),
            ("convert", model, "--classes", "voc", "--out", "out"),
            ("report", model),
            ("table", model),
            ("explain", model, "--class", "star"),
        ):
            yield Mistake("Models and runs", words, model.rpartition("/")[2])
    for name in (*PIPES, *DEVICES):
        for words in SPECIAL.get(name.partition("/")[0].partition(".")[2], ()):
            yield Mistake("Pipes and devices", tuple(words.format(name).split()), name)
    for words, name in PIPED.items():
        yield Mistake("Pipes and devices", tuple(words.split()), name)
    for place in PLACES:
        yield Mistake("Files and folders", ("train", "recipe.yaml", "--no-cache", "--out", place), place.split("/")[0])
        yield Mistake("Files and folders", ("plan", "recipe.yaml", "--draw", f"{place}/a.png"), place.split("/")[0])


MISTAKES = tuple(mistakes())
