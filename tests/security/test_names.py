"""Names of classes, files and runs: shown literally, or refused; never markup, escape codes or scripts."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contseg.cli.console import PlainConsole
from contseg.data.classes import ClassTable
from contseg.data.open import open_dataset
from contseg.data.tiff import read_raster
from contseg.errors import INVISIBLE, visible
from contseg.report.page import environment
from tests.security.refusal import refusal

CONTROLS = [
    chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
]
ENDS_A_LINE = re.compile("[\x00\n\r\v\f\x1c-\x1e\x85\u2028\u2029\ud800-\udfff]")
MARKUP = [
    "[/x]", "[bold]", "road [wet]", "[link=http://a]b[/link]", ":smile:", "$x_{$", "50 %s {0}", "{{ 1 + 1 }}", "{% raw %}",
    "${PATH}", "`id`", "<b>a</b>", "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "' onclick='a",
    "</style>", "&lt;", "-->", "]]>", "a|b", "*a*", "#", "../..", "=1+1", "\u202eabc", "a\x1b[31mred", "a\x1b]0;title\x07",
    "a\x08\x08", "\x9b31m",
]  # fmt: skip


@pytest.mark.parametrize("character", CONTROLS, ids=ascii)
def test_a_control_character_never_reaches_terminal_or_page(character):
    name = f"a{character}b"
    console = PlainConsole(width=80)
    with console.capture() as capture:
        console.print(name)
    page = environment().from_string("<p>{{ name }}</p>").render(name=name)
    for text in (capture.get(), page):
        assert not INVISIBLE.search(text)
    refused = refusal(ClassTable.of, ["background", name])
    assert ("not one line" in refused) == bool(ENDS_A_LINE.search(name))
    assert not INVISIBLE.search(visible(refused))


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb", "", "  ", "a\nb"], ids=ascii)
def test_a_name_that_no_file_can_contain_is_refused(name):
    assert "use another name" in refusal(ClassTable.of, ["background", name])


@pytest.mark.parametrize("name", MARKUP, ids=ascii)
def test_markup_is_shown_literally(name):
    console = PlainConsole(width=200)
    with console.capture() as capture:
        console.print(name)
    assert capture.get() == visible(name) + "\n"
    page = environment().from_string('<p title="{{ name }}">{{ name }}</p>').render(name=name)
    assert page.count("<") == page.count(">") == 2
    assert page.count('"') == 2


@pytest.mark.parametrize("template", ["page.html", "extension.html"])
def test_a_page_forbids_requests_and_all_scripts_but_its_own(template):
    made = environment("contseg.extension")
    source = made.loader.get_source(made, "base.html")[0]
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]+)"', source)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert re.findall("script-src ([^;]*);", policy[1]) == ["'{{ script_hash }}'"]
    assert source.index(policy[0]) < source.index("<style") < source.index("<script")
    for each in (template, "parts.html"):
        content = made.loader.get_source(made, each)[0]
        assert "<script" not in content
        assert not re.search(r"\son[a-z]+=", content)
        assert "|safe" not in content.replace("' class=\"from\"'|safe", "")
    assert made.loader.get_source(made, template)[0].startswith('{% extends "base.html" %}')


def folder(root):
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(np.full((8, 8), number % 2, np.uint8)).save(root / part / f"{number}.png")
    (root / "classes.txt").write_text("background\na\n")
    return root


@pytest.mark.parametrize("part", ["images", "masks"])
@pytest.mark.parametrize("whole", [True, False], ids=["folder", "file"])
def test_a_link_out_of_a_dataset_is_refused_unless_it_is_allowed(tmp_path, part, whole):
    root, far = folder(tmp_path / "data"), tmp_path / "far"
    far.mkdir()
    moved = root / part if whole else root / part / "0.png"
    moved.rename(far / moved.name)
    moved.symlink_to(far / moved.name)
    assert re.search(
        rf"{part}/\d.png: is .*far.*; copy it there, or set data.follow_links=true", refusal(open_dataset, "folder", root)
    )
    dataset = open_dataset("folder", root, follow_links=True)
    assert len([*dataset.names("train"), *dataset.names("test")]) == 4


def test_links_within_a_dataset_and_to_it_are_followed(tmp_path):
    root = folder(tmp_path / "data")
    (root / "images" / "4.png").symlink_to(root / "images" / "0.png")
    (root / "masks" / "4.png").symlink_to("0.png")
    (tmp_path / "link").symlink_to(root)
    for path in (root, tmp_path / "link"):
        dataset = open_dataset("folder", path)
        assert len([*dataset.names("train"), *dataset.names("test")]) == 5


@pytest.mark.parametrize("value", [0, -1, 1.5, "many", True], ids=repr)
def test_a_number_of_pixels_that_is_none_is_refused(tmp_path, value):
    assert "data.max_pixels" in refusal(open_dataset, "folder", tmp_path, max_pixels=value)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("scheme", ["http:", "s3:", "zip:", "vrt:"])
def test_a_folder_named_like_an_address_is_a_folder(tmp_path, monkeypatch, scheme):
    pytest.importorskip("rasterio")
    place = tmp_path / scheme / "host"
    place.mkdir(parents=True)
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(place / "a.tif")
    monkeypatch.chdir(tmp_path)
    assert read_raster(Path(scheme) / "host" / "a.tif").tolist() == np.full((8, 8, 1), 7).tolist()
