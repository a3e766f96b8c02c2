"""The documentation site builds without a warning and documents every exported name."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import contseg

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def in_navigation(entries: list) -> set[str]:
    """The pages of a navigation."""
    pages: set[str] = set()
    for entry in entries:
        for target in entry.values():
            pages |= {target} if isinstance(target, str) else in_navigation(target)
    return pages


def test_every_page_is_in_the_navigation():
    navigation = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    assert in_navigation(navigation) == {page.name for page in DOCS.glob("*.md")}


def test_the_home_page_includes_the_readme():
    readme, home = (path.read_text(encoding="utf-8") for path in (ROOT / "README.md", DOCS / "index.md"))
    sections = re.findall(r"\[start:(\w+)\] -->\n.*?\[end:\1\]", readme, re.DOTALL)
    assert re.findall(r'^--8<-- "README.md:(\w+)"$', home, re.MULTILINE) == sections == ["introduction", "demo"]


def test_the_reference_has_every_exported_name():
    assert sorted(
        re.findall(r"^::: contseg\.(\w+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    ) == sorted(contseg.__all__)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("zensical"), reason="pip install contseg[docs]")
def test_the_site_builds_without_warnings(tmp_path):
    for name in ("zensical.toml", "docs_examples.py", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copytree(ROOT / "src", tmp_path / "src")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"], cwd=tmp_path, capture_output=True, text=True, timeout=1800
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert "griffe:" not in printed, printed
    site = tmp_path / "site"
    assert {page.stem for page in DOCS.glob("*.md")} <= {page.stem for page in site.glob("*.html")}
    reference = (site / "api.html").read_text(encoding="utf-8")
    for name in contseg.__all__:
        assert f'id="contseg.{name}"' in reference
    assert reference.count("&gt;&gt;&gt;") >= 5, "examples of docstrings are rendered as code"
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', reference), "the site opens without a network"
