"""The page opened in a real browser, without a network."""

import json
import re
import shutil
import subprocess
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from contseg.recipes.read import read_recipe, to_yaml
from contseg.report.page import write_report
from tests.engine.runs import learn, tiny_recipe
from tests.report.pages import Page, made_run

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


MEASURE = """<script>addEventListener("load", () => {
  document.querySelectorAll("details").forEach(one => one.open = true);
  const textBox = element => {
    const range = document.createRange();
    range.selectNodeContents(element.firstChild.tagName === "I" ? element : element.firstChild);
    return range.getBoundingClientRect();
  };
  const unreadable = [];
  for (const list of ["ol.bars li", "table.classes td:first-child", "table.holding td:first-child", ".legend span"]) {
    const names = [...document.querySelectorAll(list)].map(one => ({ one, text: one.textContent, box: textBox(one) }));
    for (const [place, { one, text, box }] of names.entries()) {
      const around = one.getBoundingClientRect();
      const outside = !one.closest(".wide") && box.right > innerWidth;
      if (box.width < 1 || box.left < around.left - 1 || box.right > around.right + 1 || outside)
        unreadable.push("cut: " + text);
      for (const { text: other, box: its } of names.slice(place + 1)) {
        const apart = box.left > its.right - 1 || its.left > box.right - 1 || box.top > its.bottom - 1
          || its.top > box.bottom - 1;
        if (!apart) unreadable.push("on each other: " + text + ", " + other);
      }
    }
  }
  const style = getComputedStyle(document.body);
  parent.postMessage(JSON.stringify({
    width: innerWidth,
    wider: document.documentElement.scrollWidth,
    ink: style.color,
    paper: style.backgroundColor,
    names: document.querySelectorAll("ol.bars li").length,
    drawing: document.querySelector(".charts img").currentSrc,
    unreadable,
  }), "*");
})</script></body>"""
"""Has the browser measure the page with everything unfolded. Names are measured by the rectangles of their text."""

FRAME = """<html style="color-scheme: light dark"><body>
<iframe src="asked.html" style="width: {width}px; height: 900px; border: 0"></iframe>
<script>
addEventListener("message", event => document.body.dataset.measured = encodeURIComponent(event.data))
</script></body></html>"""
"""A window of headless Chromium is 500 pixels wide or wider; a frame can be as narrow as a phone."""


def probed(path, script: str):
    """A copy of the page with a script, which its security policy would refuse."""
    text, policy = path.read_text(encoding="utf-8"), "default-src 'none'; "
    assert policy in text
    copy = path.with_name("asked.html")
    copy.write_text(
        text.replace(policy, f"{policy}script-src 'unsafe-inline'; ").replace("</body>", script), encoding="utf-8"
    )
    return copy


def measured(browser, path, width: int, *, dark: bool) -> dict:
    probed(path, MEASURE)
    frame = path.with_name("frame.html")
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    document = opened(browser, frame, "--dump-dom", "--window-size=1400,1000", scheme)
    return json.loads(unquote(re.search('data-measured="([^"]*)"', document)[1]))


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
    document = opened(browser, probed(path, CHECK), "--dump-dom")
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


FEW = ["background", "cat", "<b>dog</b>", "$x$", "a name that is far longer than names of classes use to be"]
MANY = ["background", *(f"class {number} or {'another ' * (number % 4)}name" for number in range(1, 150)), "w" * 40]


@pytest.fixture(scope="module", params=[FEW, MANY], ids=["few classes", "151 classes"])
def compared(request, tmp_path_factory):
    """The page of two runs of one plan."""
    folder, names = tmp_path_factory.mktemp("compared"), request.param
    groups = [0 if number < len(names) * 2 // 3 else 1 + number % 2 for number in range(len(names))]
    runs = [made_run(folder / name, names, sorted(groups), seed=seed) for seed, name in enumerate(("one-method", "another"))]
    return write_report([run.folder for run in runs], folder / "page.html"), len(names)


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_can_be_read_on_a_phone_and_on_a_screen_by_day_and_by_night(browser, compared, width, dark):
    path, count = compared
    found = measured(browser, path, width, dark=dark)
    assert found["width"] == width
    assert found["wider"] <= width, "the page scrolls sideways"
    assert found["names"] == count
    assert found["unreadable"] == []
    ink, paper = luminance(found["ink"]), luminance(found["paper"])
    assert (ink > paper) is dark
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 10
    light, night = re.search(r'class="charts">.*?srcset="([^"]*)"><img src="([^"]*)"', path.read_text(), re.DOTALL).groups()[
        ::-1
    ]
    assert found["drawing"] == (night if dark else light)
    assert light != night


def luminance(colour: str) -> float:
    """Of "rgb(r, g, b)", as contrast ratios of web pages have it."""
    parts = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    return float(np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])
