"""YAML, JSON, lists and COCO files from anywhere: read, or refused in one line that names the file."""

import json
import random
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from contseg.data.datasets.class_list import read_class_list
from contseg.data.datasets.coco_rows import read_coco
from contseg.data.datasets.coco_segments import segment
from contseg.data.datasets.labelme import Labelme
from contseg.data.lists import read_list, read_names
from contseg.parsing import MAX_YAML, parse_json, parse_yaml
from contseg.recipes.read import read_recipe
from contseg.settings import key_value
from tests.security.refusal import refusal

BOMB = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else '1, 2'}]" for n in range(9))
NO_YAML = {
    "brackets": "[" * 5000 + "]" * 5000,
    "open brackets": "[" * 600_000,
    "braces": "{a: " * 2000,
    "dashes": "- " * 1000 + "a",
    "lines": "".join(" " * depth + "a:\n" for depth in range(300)),
    "sixty levels": "[" * 60 + "]" * 60,
    "aliases of aliases": BOMB,
    "itself": "&a {b: *a}",
    "itself, deeper": "a: &a\n  b: [1, *a]\n",
    "a command": "!!python/object/apply:os.system ['touch started']",
    "a name of Python": "a: !!python/name:os.system",
    "a module": "a: !!python/module:os",
    "another tag": "a: !evil {b: 1}",
    "a control character": "a: \x00",
    "a key twice": "a: 1\na: 2",
    "5000 digits": f"a: {'9' * 5000}",
    "month 13": "a: 2020-13-45",
    "two documents": "a: 1\n---\nb: 2",
    "an unknown alias": "a: *b",
    "a merge of a number": "<<: 3\na: 1",
    "another version": "%YAML 9.9\n---\na: 1",
    "too long": "a: " + "x" * MAX_YAML,
    "a tab": "a:\n\t- b",
    "an open quote": 'a: "b',
    "surrogate": "a: \ud800",
    "an escaped surrogate": 'a: "\\ud83d\\ude00"',
    "a key with an escaped surrogate": '{a: {"\\ud83d": 1}}',
}
NO_RECIPE = NO_YAML | {
    "nothing": "",
    "a list": "[1, 2]",
    "a number": "1",
    "a key that is a number": "1: 2",
    "a key that is a list": "? [a, b]\n: 1",
    "a key that is nothing": "~: 1",
    "a key that is true": "true: 1",
    "a set": "!!set {a, b}",
}
NO_JSON = {
    "brackets": "[" * 200_000,
    "braces": '{"a":' * 100_000,
    "5000 digits": "9" * 5000,
    "nothing": "",
    "half": '{"images": [',
    "quotes": "{'a': 1}",
    "rest": "{} {}",
    "a comment": "// a\n{}",
    "a control character": '"\x00"',
    "NUL": "\0",
}


@pytest.mark.parametrize("name", NO_YAML)
def test_yaml_that_is_deep_circular_or_code_is_one_line(name):
    assert refusal(parse_yaml, NO_YAML[name], "a.yaml").startswith("a.yaml: ")
    assert "value is not YAML" in refusal(key_value, f"a.b={NO_YAML[name]}", "a=1")


@pytest.mark.parametrize("name", [name for name in NO_RECIPE if name != "surrogate"])
def test_a_recipe_that_is_none_names_its_file(tmp_path, name):
    path = tmp_path / "a.yaml"
    path.write_bytes(NO_RECIPE[name].encode(errors="surrogatepass"))
    assert str(path) in refusal(read_recipe, path)


@pytest.mark.parametrize("name", NO_YAML)
def test_a_class_table_that_is_none_names_its_file(tmp_path, name):
    path = tmp_path / "classes.yaml"
    path.write_bytes(NO_YAML[name].encode(errors="surrogatepass"))
    assert str(path) in refusal(read_class_list, tmp_path, "annotated")


ROWS = {
    "fractions": "0: a\n1.5: b",
    "infinity": "- {id: .inf, name: a}",
    "NaN": "- {id: .nan, name: a}",
    "negative": "0: background\n-1: a",
    "large": "0: background\n99999999: a",
    "colour": "- {id: 0, name: background, colour: [.inf, 0, 0]}",
    "colour of two": "- {id: 0, name: background, colour: [1, 2]}",
    "empty": "0: background\n1: ''",
    "blank": "0: background\n1: '  '",
    "line break": '0: background\n1: "a\\nb"',
    "return": '0: background\n1: "a\\rb"',
    "NUL": '0: background\n1: "a\\0b"',
    "line separator": '0: background\n1: "a\\u2028b"',
    "twice": "0: background\n1: a\n2: a",
    "text": "classes",
    "numbers": "[1, 2]",
    "nested": "[[1], [2]]",
    "nothing": "",
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_a_class_table_that_cannot_be_is_refused(tmp_path, name):
    (tmp_path / "classes.yaml").write_text(ROWS[name])
    assert "classes.yaml" in refusal(read_class_list, tmp_path, "annotated")


LISTS = {
    "latin": b"caf\xe9\n",
    "UTF-16": "a\nb\n".encode("utf-16"),
    "surrogate": b"a\xed\xa0\x80",
    "empty": b"",
    "blank": b" \n\t\n",
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("read", [read_list, read_names])
def test_a_list_that_is_no_text_names_its_file(tmp_path, read, name):
    (tmp_path / "train.txt").write_bytes(LISTS[name])
    assert "train.txt" in refusal(read, tmp_path / "train.txt")


@pytest.mark.parametrize(
    "line", ["../../secret", "/etc/passwd", "..\\..\\secret", "a/../../secret.png", "images/../../secret"]
)
def test_a_listed_name_never_leads_out_of_a_folder(tmp_path, line):
    (tmp_path / "train.txt").write_text(line + "\n")
    assert read_names(tmp_path / "train.txt")[0] in ("secret", "passwd")


@pytest.mark.parametrize("name", NO_JSON)
def test_json_that_is_deep_or_none_is_one_line(tmp_path, name):
    assert refusal(parse_json, NO_JSON[name], "a.json").startswith("a.json: ")
    (tmp_path / "a.json").write_text(NO_JSON[name])
    assert "a.json" in refusal(Labelme, tmp_path)
    assert "a.json" in refusal(read_coco, tmp_path / "a.json", tmp_path)


PATHS = [
    "../secret.png", "../../secret.png", "a/../../secret.png", "..\\secret.png", "/etc/passwd", "/dev/zero", "..", ".", "",
    "\0", "a.png\0.txt", "file:///etc/passwd", "%2e%2e/secret.png", "//host/secret.png", "a/../..",
]  # fmt: skip


@pytest.mark.parametrize("file", PATHS, ids=repr)
def test_a_file_name_of_coco_stays_in_its_folder(tmp_path, file):
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    for place in (tmp_path, tmp_path / "data"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(place / "secret.png")
    content = {"images": [{"id": 1, "file_name": file}], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    if refused := refusal(read_coco, tmp_path / "a.json", folder):
        assert "is no path in" in refused
    else:
        assert folder in read_coco(tmp_path / "a.json", folder).images[1].path.resolve().parents


VALUES = [
    None, [], {}, "", -1, 0, 10**30, 1e400, float("nan"), True, [[[]]], {"a": {}}, "x" * 9999, [1e308] * 6, [["a"] * 6],
    [[None] * 6], {"size": [8, 8], "counts": [64]}, {"size": [8, 8], "counts": "a" * 9999},
    {"size": [8, 8], "counts": [-1, 65]},
    {"size": [10**9, 10**9], "counts": [10**18]}, {"size": [8, 8], "counts": [10**30]}, {"size": None, "counts": None},
    {"counts": [64]}, [[0, 0, 1e9, 0, 1e9, 1e9]],
]  # fmt: skip
KEYS = [
    ("images", "id"), ("images", "file_name"), ("images", "height"), ("images", "width"), ("annotations", "id"),
    ("annotations", "image_id"), ("annotations", "category_id"), ("annotations", "segmentation"), ("categories", "id"),
    ("categories", "name"), ("categories", "supercategory"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_a_value_of_coco_may_be_anything(tmp_path, table, key):
    pytest.importorskip("pycocotools")
    for value in VALUES:
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4]]}],
            "categories": [{"id": 1, "name": "x", "supercategory": ""}],
        }
        content[table][0][key] = value
        (tmp_path / "a.json").write_text(json.dumps(content))
        refusal(read_coco, tmp_path / "a.json", tmp_path)


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_a_segmentation_may_be_anything(value):
    pytest.importorskip("pycocotools")
    with suppress(ValueError):
        assert segment(value, 8, 8).shape == (8, 8)


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_of_random_text_are_drawn_or_refused(seed):
    pytest.importorskip("pycocotools")
    chance = random.Random(seed)
    text = "".join(chr(chance.randrange(40, 120)) for _ in range(chance.randrange(1, 60)))
    with pytest.raises(ValueError, match="run lengths"):
        segment({"size": [8, 8], "counts": text}, 8, 8)
