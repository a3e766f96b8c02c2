"""Random inputs for everything that reads files: only a `ContsegError` in one line is allowed. `make fuzz` takes 10 minutes.

Recipes, splits, lists, masks, COCO files, class tables, headers, checkpoints and files of runs are made by hypothesis, most
of them as small changes to sound ones. A failure prints the smallest input that was found; it belongs into tests/security.
If atheris is installed, half of the time is that of `benchmarks.fuzz_guided`; otherwise hypothesis has all of it.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as some
from hypothesis.strategies import SearchStrategy
from safetensors.torch import save

from contseg.archives import read_array, read_arrays
from contseg.data.classes import ClassTable
from contseg.data.datasets.class_list import read_class_list
from contseg.data.datasets.coco_rows import read_coco
from contseg.data.datasets.coco_segments import segment
from contseg.data.files import image_size, read_image, read_mask
from contseg.data.lists import read_names
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.interop.checkpoint import read_tensors
from contseg.interop.segmenter_file import describe, load_segmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.parsing import parse_json, parse_yaml
from contseg.recipes.read import read_recipe, recipe_text, to_yaml
from contseg.scenarios.splits import parse_split
from tests.security import test_pictures as pictures
from tests.security import test_weights as weights

FOLDER = Path(tempfile.mkdtemp())
ROUND = 200
"""Examples of each target before the next one gets its turn."""

plain = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=20),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def changed(sound: bytes) -> SearchStrategy[bytes]:
    """A sound file with a few bytes replaced, inserted or cut off."""
    edit = some.tuples(some.integers(0, max(1, len(sound) - 1)), some.binary(max_size=4), some.integers(0, 8))

    def edited(edits: list[tuple[int, bytes, int]]) -> bytes:
        data = sound
        for at, new, drop in edits:
            data = data[:at] + new + data[at + drop :]
        return data

    return some.lists(edit, max_size=4).map(edited)


def replaced(sound: object) -> SearchStrategy[object]:
    """A sound content of JSON in which one value, at any depth, is another."""

    def with_value(pair: tuple[int, object]) -> object:
        content = json.loads(json.dumps(sound))
        places = list(_places(content))
        holder, key = places[pair[0] % len(places)]
        holder[key] = pair[1]
        return content

    return some.tuples(some.integers(0, 10_000), plain).map(with_value)


def _places(content):
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield content, key
        if isinstance(value, dict | list):
            yield from _places(value)


def in_file(name: str, *readers: Callable[[Path], object]) -> Callable[[bytes], None]:
    """A target that writes its input to a file."""

    def target(data: bytes) -> None:
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        for read in readers:
            allowed(read, path)

    return target


def allowed(read: Callable[..., object], *arguments: object) -> None:
    """Call a reader; only a `ContsegError` of one line is an answer.

    Some inner functions document ValueError, which their callers turn into a `ContsegError` that names the file.
    """
    message = ""
    try:
        read(*arguments)
    except ContsegError as error:
        message = str(error)
    except ValueError:
        if read not in (read_arrays, read_array, segment):
            raise
    assert "\n" not in message
    assert len(message) < 2000


COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[0, 0, 4, 0, 4, 4]]}],
    "categories": [{"id": 1, "name": "x", "supercategory": ""}],
}
SEGMENTER = Segmenter(NetworkOptions(backbone={"name": "resnet18", "width": 4}, head={"name": "fcn", "width": 8}), [2])
TENSORS = {name: tensor.contiguous() for name, tensor in SEGMENTER.state_dict().items()}
HEADER = describe(SEGMENTER, ClassTable.of(["background", "cat"]))


def checkpoint() -> bytes:
    """A small file of `torch.save`."""
    torch.save({"state_dict": {"a": torch.zeros(2)}, "epoch": 3}, FOLDER / "sound.pth")
    return (FOLDER / "sound.pth").read_bytes()


def as_json(content: object) -> bytes:
    """The content as a file."""
    return json.dumps(content).encode()


def header_file(content: object) -> bytes:
    """A segmenter with this header."""
    return save(TENSORS, metadata={"contseg": json.dumps(content)})


def read_words(path: Path) -> object:
    """The class list in the folder of a file."""
    return read_class_list(path.parent, "none")


def read_rows(path: Path) -> object:
    """The class table in the folder of a file."""
    return read_class_list(path.parent, "annotated")


def read_plan(path: Path) -> object:
    """The plan of the run in the folder of a file."""
    return Run(path.parent).plan()


def read_objects(path: Path) -> object:
    """A COCO file."""
    return read_coco(path, FOLDER)


ARRAY = weights.npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }")
RECIPE = parse_yaml(to_yaml(read_recipe("digits/plop_5-1")), "recipe")
TARGETS: dict[str, tuple[SearchStrategy, Callable]] = {
    "YAML": (some.text(max_size=200), lambda text: allowed(parse_yaml, text, "a.yaml")),
    "JSON": (some.text(max_size=200), lambda text: allowed(parse_json, text, "a.json")),
    "recipe text": (changed(recipe_text("digits/plop_5-1").encode()), in_file("a.yaml", read_recipe)),
    "recipe values": (replaced(RECIPE).map(as_json), in_file("a.yaml", read_recipe)),
    "split": (some.text("0123456789-, ", max_size=12), lambda text: allowed(parse_split, text, 20)),
    "list": (some.binary(max_size=200), in_file("train.txt", read_names)),
    "class list": (some.binary(max_size=200), in_file("words/classes.txt", read_words)),
    "class table": (
        replaced([{"id": 0, "name": "background", "colour": [0, 0, 0]}, {"id": 1, "name": "a"}]).map(as_json),
        in_file("rows/classes.yaml", read_rows),
    ),
    "COCO": (replaced(COCO).map(as_json), in_file("coco.json", read_objects)),
    "segmentation": (plain, lambda value: allowed(segment, value, 8, 8)),
    "header": (replaced(HEADER).map(header_file), in_file("a.safetensors", load_segmenter)),
    "segmenter": (changed(header_file(HEADER)), in_file("b.safetensors", load_segmenter)),
    "checkpoint": (changed(checkpoint()), in_file("a.pth", read_tensors)),
    "arrays": (changed(weights.npz(a=ARRAY)), in_file("a.npz", read_arrays)),
    "array": (changed(ARRAY), in_file("a.npy", read_array)),
    "plan of a run": (replaced({"hash": "a", "steps": [{}]}).map(as_json), in_file("run/plan.json", read_plan)),
    **{
        f"{form} picture": (changed(pictures.sound(form)), in_file("a.png", read_image, read_mask, image_size))
        for form in pictures.FORMATS
    },
}


def test_of(name: str, turn: int, counts: Counter[str]) -> Callable[[], None]:
    """A test of hypothesis that gives a target `ROUND` inputs, and counts them."""
    inputs, target = TARGETS[name]

    @seed(turn)
    @settings(max_examples=ROUND, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(inputs)
    def test(value):
        counts[name] += 1
        target(value)

    return test


def has_atheris() -> bool:
    """Whether atheris can be imported."""
    try:
        from atheris import Fuzz  # noqa: F401
    except ImportError:
        return False
    return True


def guided(name: str, seconds: float) -> str:
    """Give a target to atheris; returns what it printed about a failure, or "" without one."""
    words = ["-W", "ignore", "-m", "benchmarks.fuzz_guided", name, f"{max(1, seconds):.0f}"]
    process = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    return process.stderr[-3000:] or f"exit code {process.returncode}" if process.returncode else ""


def main(minutes: float) -> int:
    """Give every target its turn until the time is over; returns the number of targets that failed."""
    counts: Counter[str] = Counter()
    failed: set[str] = set()
    share = 30 * minutes / len(TARGETS) if has_atheris() else 0.0  # seconds of atheris per target
    end = time.monotonic() + 60 * minutes - share * len(TARGETS)
    for turn, name in ((turn, name) for turn in count() for name in TARGETS):
        if time.monotonic() > end or len(failed) == len(TARGETS):
            break
        if name in failed:
            continue
        try:
            test_of(name, turn, counts)()
        except Exception as error:
            failed.add(name)
            print(f"{name}: {type(error).__name__}: {error}\n" + "\n".join(getattr(error, "__notes__", [])), flush=True)
    for name in TARGETS.keys() - failed if share else ():
        if found := guided(name, share):
            failed.add(name)
            print(f"{name}: {found}", flush=True)
    names = ", ".join(sorted(failed)) or "none"
    print(f"{counts.total()} inputs of hypothesis for {len(TARGETS)} targets, {len(failed)} failed: {names}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(min(1, main(float(sys.argv[1]) if len(sys.argv) > 1 else 10)))
