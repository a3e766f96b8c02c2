"""Files that are not what a command expects, and `recipe.yaml`, which is a recipe."""

import os
from pathlib import Path

RECIPE = "extends: digits/finetune_5-1\nname: tiny\ndata: {crop: 32, options: {train: 73, test: 12, size: 48}}\n"
DATA = "name: x\ndata: {dataset: digits}\n"


def _laughs() -> str:
    """A few hundred bytes that stand for ten billion values."""
    levels = [f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]" for number in range(1, 11)]
    return "\n".join(["a0: &a0 [x]", *levels])


FILES: dict[str, str | bytes] = {
    "empty.yaml": "",
    "list.yaml": "[1, 2]",
    "word.yaml": "plop",
    "number.yaml": "1",
    "unfinished.yaml": "{name: x",
    "tabs.yaml": "name:\n\tx: 1",
    "twice.yaml": f"{DATA}name: y\n",
    "latin1.yaml": "name: caf\u00e9".encode("latin-1"),
    "utf16.yaml": DATA.encode("utf-16"),
    "binary.yaml": bytes(range(256)),
    "nul.yaml": "name: x\0y",
    "image.yaml": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "deep.yaml": "[" * 5000,
    "deep-keys.yaml": "".join(f"{' ' * number}a:\n" for number in range(200)),
    "circle-of-values.yaml": "name: x\ndata: &a {options: *a}",
    "laughs.yaml": _laughs(),
    "object.yaml": "name: !!python/object/apply:os.system [echo]",
    "tag.yaml": "name: !mine x",
    "date.yaml": f"{DATA}training: {{lr: 2001-99-99}}",
    "int.yaml": f"{DATA}training: {{seed: !!int abc}}",
    "digits.yaml": f"{DATA}training: {{seed: {'9' * 5000}}}",
    "two.yaml": f"{DATA}---\n{DATA}",
    "alias.yaml": "name: *missing",
    "no-data.yaml": "name: x",
    "no-name.yaml": "data: {dataset: digits}",
    "key.yaml": f"{DATA}trainig: {{}}",
    "number-key.yaml": f"{DATA}1: 2",
    "null-key.yaml": f"{DATA}null: 2",
    "self.yaml": f"{DATA}extends: self",
    "one.yaml": f"{DATA}extends: other",
    "other.yaml": f"{DATA}extends: [one]",
    "folder/../roundabout.yaml": f"{DATA}extends: folder/../roundabout",
    "many.yaml": f"{DATA}extends: [{', '.join(['many1'] * 8)}]",
    "extends-number.yaml": f"{DATA}extends: 5",
    "extends-keys.yaml": f"{DATA}extends: {{a: 1}}",
    "extends-missing.yaml": f"{DATA}extends: no/such/part",
    "extends-nothing.yaml": f"{DATA}extends:",
}
"""Recipes that are none. `extends-missing` names another file in its error."""
PARTS = {f"many{level}.yaml": f"extends: [{', '.join([f'many{level + 1}'] * 8)}]" for level in range(1, 8)} | {
    "many8.yaml": "note: x"
}
TUNED = "recipe: digits/plop_5-1\non: [seed:1]\nspace: {method.pod: 0:1}\n"
MODELS = (
    "missing", "empty", "notes.txt", "empty.safetensors", "text.safetensors", "header.safetensors", "text.pth", "zero.onnx",
)  # fmt: skip


PIPES = (
    "pipe.yaml", "pipe.txt", "pipe.pth", "pipe.safetensors", "pipe.py", "piped-run/recipe.yaml", "piped-coco/a.json",
    "piped-classes/classes.txt", "piped-classes/images/a.png", "piped-classes/masks/a.png",
    "piped-tiles/top_potsdam_2_10_RGB.tif",
)  # fmt: skip
"""Pipes that nothing writes to, for which a reader would wait."""
DEVICES = ("device.yaml", "device.txt", "device.pth", "device.safetensors")
"""Links to a device that never ends."""


def write(folder: Path) -> None:
    """Write all of them into a folder."""
    (folder / "folder").mkdir()
    for name, content in {**FILES, **PARTS, "recipe.yaml": RECIPE}.items():
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in ("empty", "images"):
        (folder / name).mkdir()
    (folder / "loop").symlink_to("loop")
    for name in PIPES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(folder / name)
    for name in DEVICES:
        (folder / name).symlink_to("/dev/zero")
    for name, form, more in (("tune", 1, ""), ("newer-tune", 2, ""), ("wrong-tune", 1, "trails: 3\n")):
        (folder / name).mkdir()
        (folder / name / "tune.yaml").write_text(f"format: {form}\n{TUNED}{more}")
    for name, content in {
        "notes.txt": b"not at all",
        "empty.safetensors": b"",
        "text.safetensors": b"not at all",
        "header.safetensors": (1 << 60).to_bytes(8, "little") + b"{}",
        "text.pth": b"not at all",
        "zero.onnx": bytes(64),
    }.items():
        (folder / name).write_bytes(content)
