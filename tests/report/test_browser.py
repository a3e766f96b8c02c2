"""The page opened in a real browser, without a network."""

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from contseg.recipes.read import read_recipe, to_yaml
from contseg.report.page import write_report
from tests.engine.runs import learn, tiny_recipe
from tests.report.pages import Page

pytestmark = pytest.mark.slow

CHECK = """<script>addEventListener("load", () => {
  const images = [...document.images];
  document.body.dataset.shown = images.filter(image => image.complete && image.naturalWidth > 0).length;
  const entries = performance.getEntriesByType("resource");
  document.body.dataset.fetched = entries.filter(entry => !entry.name.startsWith("data:")).length;
  document.body.dataset.wider = document.documentElement.scrollWidth > innerWidth;
})</script></body>"""
"""Asks the browser what it made of the page."""


@pytest.fixture(scope="module")
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no chromium on this machine, so the page cannot be opened in a browser")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    run = learn(folder / "run", tiny_recipe("finetune", "training.epochs=1"))
    # says to be of a recipe beside which there are published numbers, so that their table is seen too
    run.write_text("recipe.yaml", to_yaml(read_recipe("voc/mib_15-1_overlapped", ["data.test_crop=null"])))
    return write_report([run.folder], folder / "page.html")


def opened(browser, path, *options) -> str:
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
        f"--user-data-dir={path.parent / 'profile'}", "--virtual-time-budget=5000", *options, path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_document_holds_title_tables_and_pictures(browser, path):
    written = path.read_text(encoding="utf-8")
    asked = path.with_name("asked.html")
    asked.write_text(written.replace("</body>", CHECK), encoding="utf-8")
    document = opened(browser, asked, "--dump-dom")
    seen, meant = Page(document), Page(written)
    assert seen.title == "contseg: run"
    assert seen.tables == meant.tables
    assert len(seen.table("published")) > 1
    assert f'data-shown="{len(meant.images)}"' in document  # every one decoded
    assert 'data-fetched="0"' in document
    assert 'data-wider="false"' in document


def test_it_looks_like_something(browser, path):
    shot = path.with_name("shot.png")
    opened(browser, path, f"--screenshot={shot}", "--window-size=1200,3000")
    pixels = np.array(Image.open(shot).convert("RGB"))
    assert pixels.shape == (3000, 1200, 3)
    assert len(np.unique(pixels[::3, ::3].reshape(-1, 3), axis=0)) > 500  # curves, maps and photographs
    assert 0.3 < (pixels == 255).all(axis=2).mean() < 0.97
