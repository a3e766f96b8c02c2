"""The page opened in a real browser, without a network: it can be read, used, and used without a mouse."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from contseg.data.classes import ClassTable
from contseg.engine.run import Run
from contseg.extension.page import Picture, write_page
from contseg.recipes.read import read_recipe, to_yaml
from contseg.report.figures import label_map, photo
from contseg.report.page import write_report
from tests.engine.runs import learn, tiny_recipe
from tests.report.browser import Browser, chromium
from tests.report.pages import Page, made_run

pytestmark = pytest.mark.slow

PHONE, SCREEN = 390, 1200
FEW = [
    "background", "cat", "<b>dog</b>", "$x$", "a name that is far longer than names of classes use to be",
    "</script><script>hacked = 1</script>", "__proto__", "\"><img src=x onerror='hacked = 1'>",
]  # fmt: skip
MANY = ["background", *(f"class {number} or {'another ' * (number % 4)}name" for number in range(1, 150)), "w" * 40]
AXE = Path(__file__).parents[2] / ".cache/axe/node_modules/axe-core/axe.min.js"
"""Rules of accessibility, where `npm install --prefix .cache/axe axe-core` (see .ci/run) has put them."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    path = chromium()
    if path is None:
        pytest.skip("no chromium on this machine, so the page cannot be opened in a browser")
    made = Browser(path, tmp_path_factory.mktemp("browser") / "profile")
    yield made
    made.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The page of a run that was trained."""
    folder = tmp_path_factory.mktemp("trained")
    run = learn(folder / "run", tiny_recipe("finetune", "training.epochs=1"))
    # says to be of a recipe beside which there are published numbers, so that their table is seen too
    run.write_text("recipe.yaml", to_yaml(read_recipe("voc/mib_15-1_overlapped", ["data.test_crop=null"])))
    return write_report([run.folder], folder / "page.html")


@pytest.fixture(scope="module", params=[FEW, MANY], ids=["few classes", "151 classes"])
def compared(request, tmp_path_factory):
    """The page of two runs of one plan, and the classes."""
    folder, names = tmp_path_factory.mktemp("compared"), request.param
    groups = [0 if number < len(names) * 2 // 3 else 1 + number % 2 for number in range(len(names))]
    runs = [made_run(folder / name, names, sorted(groups), seed=seed) for seed, name in enumerate(("one-method", "another"))]
    return write_report([run.folder for run in runs], folder / "page.html"), names


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The page of a run of few classes, and the run."""
    folder = tmp_path_factory.mktemp("single")
    run = made_run(folder / "run", FEW, [0, 0, 0, 0, 1, 1, 2, 2])
    return write_report([run.folder], folder / "page.html"), run


MEASURE = """(() => {
  document.querySelectorAll("details").forEach(one => one.open = true);
  const textBox = element => {
    const range = document.createRange();
    range.selectNodeContents(element.firstChild.tagName === "I" ? element : element.firstChild);
    return range.getBoundingClientRect();
  };
  const unreadable = [];
  for (const list of ["ol.bars li", "ol.curves li", "table.classes td:first-child", "table.holding td:first-child",
    ".legend span", ".words p"]) {
    const there = [...document.querySelectorAll(list)].filter(one => !one.matches(".columns .absent"));
    const names = there.map(one => ({ one, text: one.textContent, box: textBox(one) }));
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
  return {
    width: innerWidth,
    wider: document.documentElement.scrollWidth,
    forgetting: [...document.querySelectorAll("#figures th")].find(one => one.textContent === "forgetting")
      .getBoundingClientRect().right,
    ink: style.color,
    paper: style.backgroundColor,
    names: document.querySelectorAll("ol.bars li").length,
    drawing: document.querySelector(".charts img").currentSrc,
    unreadable,
  };
})()"""
"""Has the browser measure the page with everything unfolded. Names are measured by the rectangles of their text."""


class TestTheDocument:
    def test_holds_title_tables_and_pictures_and_needs_nothing_else(self, browser, path):
        written = path.read_text(encoding="utf-8")
        with browser.tab(path) as tab:
            seen, meant = Page(tab.run("document.documentElement.outerHTML")), Page(written)
            assert seen.title == meant.title
            assert seen.tables == meant.tables
            assert len(seen.table("published")) > 1
            decoded = tab.run("[...document.images].filter(one => one.complete && one.naturalWidth > 0).length")
            assert decoded == len(meant.images)
            assert tab.run("document.documentElement.scrollWidth <= innerWidth")
            assert tab.requests() == []
            assert tab.messages() == []

    def test_looks_like_something(self, browser, path, tmp_path):
        with browser.tab(path) as tab:
            tab.shot(tmp_path / "shot.png")
        pixels = np.array(Image.open(tmp_path / "shot.png").convert("RGB"))
        assert pixels.shape[1] == SCREEN
        assert len(np.unique(pixels[::3, ::3].reshape(-1, 3), axis=0)) > 500  # curves, maps and photographs
        assert 0.3 < (pixels == 255).all(axis=2).mean() < 0.97

    @pytest.mark.parametrize("width", [360, PHONE, SCREEN])
    @pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
    def test_can_be_read_on_a_phone_and_on_a_screen_by_day_and_by_night(self, browser, compared, width, dark):
        page, names = compared
        with browser.tab(page, width, dark=dark) as tab:
            found = tab.run(MEASURE)
            assert tab.messages() == []
        assert found["width"] == width
        assert found["wider"] <= width, "the page scrolls sideways"
        assert found["forgetting"] <= width
        assert found["names"] == len(names)
        assert found["unreadable"] == []
        ink, paper = luminance(found["ink"]), luminance(found["paper"])
        assert (ink > paper) is dark
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 10
        night, light = re.search(
            r'class="charts">.*?srcset="([^"]*)"><img src="([^"]*)"', page.read_text(), re.DOTALL
        ).groups()
        assert found["drawing"] == (night if dark else light)
        assert light != night

    def test_is_dark_in_the_dark(self, browser, single, tmp_path):
        means = []
        for dark in (False, True):
            with browser.tab(single[0], dark=dark) as tab:
                tab.shot(tmp_path / "shot.png", whole=False)
            means.append(np.array(Image.open(tmp_path / "shot.png").convert("L")).mean())
        assert means[0] > 200
        assert means[1] < 80

    def test_without_script_is_what_was_written(self, browser, single):
        with browser.tab(single[0], script=False) as tab:
            assert tab.run("document.querySelectorAll('.controls, .panels, .readout, p.links, button, input').length") == 0
            assert tab.run("document.querySelector('table.samples').getBoundingClientRect().height") > 100
            assert tab.messages() == []

    def test_unfolds_and_drops_its_controls_when_it_is_printed(self, browser, single):
        with browser.tab(single[0]) as tab:
            tab.scheme(dark=False, media="print")
            tab.run("dispatchEvent(new Event('beforeprint'))")
            assert tab.run("document.querySelectorAll('details:not([open])').length") == 0
            assert tab.run("getComputedStyle(document.querySelector('.controls')).display") == "none"
            tab.run("dispatchEvent(new Event('afterprint'))")
            assert tab.run("document.querySelectorAll('details:not([open])').length") > 0

    @pytest.mark.parametrize("width", [PHONE, SCREEN])
    @pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
    def test_follows_the_rules_of_accessibility(self, browser, single, width, dark):
        if not AXE.is_file():
            pytest.skip(f"{AXE} is missing; npm install --prefix .cache/axe axe-core@4.14.1")
        with browser.tab(single[0], width, dark=dark) as tab:
            tab.run(f"{AXE.read_text(encoding='utf-8')}; 1")
            found = tab.run(
                "axe.run().then(found => found.violations.map(one => [one.id, one.nodes.map(node => node.html)]))"
            )
        assert found == []


PANEL = """(place => {
  const shown = document.querySelectorAll(".panels canvas")[place], canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [shown.width, shown.height];
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(shown, 0, 0);
  return [...context.getImageData(0, 0, canvas.width, canvas.height).data].filter((_, at) => at % 4 < 3);
})"""
"""The colours of the picture in a panel."""


def panel(tab, place: int) -> np.ndarray:
    return np.array(tab.run(f"{PANEL}({place})"), dtype=np.uint8).reshape(48, 64, 3)


def choose(tab, name: str) -> None:
    tab.run(f"[...document.querySelectorAll('.chips input')].find(one => one.value === {json.dumps(name)}).click()")
    tab.settled()


class TestTestImages:
    """In panels: photograph, truth, and the prediction of the run."""

    def arrays(self, run: Run):
        """Colours, truth and the predictions of the image that is shown first, which lost most."""
        samples = run.arrays("samples.npz")
        return (
            samples["colours"],
            samples["truth0"],
            [run.arrays(f"steps/{step:02d}/predictions.npz")["prediction0"] for step in range(3)],
        )

    def test_are_shown_after_each_step_by_a_slider_that_keys_move(self, browser, single):
        page, run = single
        colours, truth, said = self.arrays(run)
        with browser.tab(page) as tab:
            assert np.array_equal(panel(tab, 1), colours[truth])
            assert np.array_equal(panel(tab, 2), colours[said[2]])
            tab.run("[...document.querySelectorAll('input[type=range]')].at(-1).focus()")
            for step in (1, 0):
                tab.press("ArrowLeft")
                assert np.array_equal(panel(tab, 2), colours[said[step]])
                assert f"after step {step}" in tab.run("document.querySelector('.controls').textContent")
            assert tab.messages() == []

    def test_have_views_of_errors_and_changes(self, browser, single):
        page, run = single
        colours, truth, said = self.arrays(run)
        with browser.tab(page) as tab:
            views = {}
            for view in ("prediction", "overlay", "errors", "changed", "entropy", "margin"):
                choose(tab, view)
                views[view] = panel(tab, 2)
            assert len({pixels.tobytes() for pixels in views.values()}) == len(views)
            orange = (views["errors"] == [213, 94, 0]).all(axis=2)
            assert np.array_equal(orange, said[2] != truth)
            changed = said[2] != said[1]
            assert np.array_equal(views["changed"][changed], colours[said[2]][changed])
            grey = views["changed"][~changed]
            assert (grey == grey[:, :1]).all()
            assert tab.messages() == []

    def test_are_ordered_by_what_was_lost_by_errors_and_at_random(self, browser, single):
        page, _ = single
        with browser.tab(page) as tab:
            name = "document.querySelector('.panels figcaption').textContent"
            assert tab.run("[...document.querySelector('.chips').querySelectorAll('input')].map(one => one.value)") == [
                "most forgotten", "worst", "drawn at random", "all",
            ]  # fmt: skip
            assert tab.run(name) == "image a"
            choose(tab, "drawn at random")
            assert tab.run(name) == "image b"
            choose(tab, "all")
            assert tab.run("document.querySelector('.range').textContent") == "image 1 of 2"

    def test_name_the_classes_at_the_pointer(self, browser, single):
        page, run = single
        _, truth, said = self.arrays(run)
        with browser.tab(page) as tab:
            tab.point(".panels figure:nth-child(3) canvas", 0.5, 0.9)
            row, column = int(0.9 * 48), 32
            shown = tab.run("document.querySelector('.panels + .readout').textContent")
            assert shown == f"truth: {FEW[truth[row, column]]} · run: {FEW[said[2][row, column]]}"
            assert tab.run("typeof hacked") == "undefined"

    def test_are_enlarged_by_a_click_or_enter_and_keys_move_on(self, browser, single):
        page, run = single
        colours, _, said = self.arrays(run)
        with browser.tab(page) as tab:
            tab.point(".panels figure:nth-child(3) canvas", click=True)
            assert tab.run("document.querySelector('dialog').open")
            assert tab.run("document.querySelector('dialog canvas').clientWidth") > 400
            tab.press("ArrowDown")
            assert np.array_equal(panel(tab, 2), colours[said[1]])
            assert "after step 1" in tab.run("document.querySelector('dialog p').textContent")
            tab.press("Escape")
            assert not tab.run("document.querySelector('dialog').open")
            tab.run("document.querySelector('.panels button').focus()")
            tab.press("Enter")
            assert tab.run("document.querySelector('dialog').open")

    def test_of_runs_are_next_to_each_other(self, browser, compared):
        with browser.tab(compared[0]) as tab:
            names = tab.run("[...document.querySelectorAll('.panels strong')].map(one => one.textContent)")
        assert names == ["image", "truth", "one-method", "another"]

    def test_of_runs_that_stored_no_doubt_have_no_view_of_it(self, browser, tmp_path):
        run = made_run(tmp_path / "run", FEW, [0, 0, 0, 0, 1, 1, 2, 2])
        for step in range(3):
            arrays = run.arrays(f"steps/{step:02d}/predictions.npz")
            run.save_arrays(
                f"steps/{step:02d}/predictions.npz", **{key: one for key, one in arrays.items() if key.startswith("p")}
            )
        with browser.tab(write_report([run.folder], tmp_path / "page.html")) as tab:
            views = tab.run("[...document.querySelectorAll('.chips')].at(1).textContent")
            assert views == "showpredictionoverlayerrorschanged"
            assert tab.messages() == []


SHOWN = """[...document.querySelectorAll("table.classes tbody tr")].filter(one => !one.hidden)
  .map(one => one.cells[0].textContent)"""


class TestClasses:
    def test_are_filtered_by_name(self, browser, compared):
        page, names = compared
        with browser.tab(page) as tab:
            tab.run("document.querySelector('input[type=search]').focus()")
            tab.call("Input.insertText", text=names[-2][:9].upper())
            expected = [name for name in names if names[-2][:9].lower() in name.lower()]
            assert 0 < len(expected) < len(names)
            assert tab.run(SHOWN) == expected
            bars = "[...document.querySelectorAll('ol.bars li')].filter(one => !one.hidden).length"
            assert tab.run(bars) == len(expected)

    def test_are_sorted_by_a_column_and_back(self, browser, single):
        page, _ = single
        with browser.tab(page) as tab:
            title = "[...document.querySelectorAll('table.classes th button')].at(-1)"  # forgetting
            tab.run(f"{title}.focus()")
            for way, sign in (("descending", -1), ("ascending", 1)):
                tab.press("Enter")
                assert tab.run(f"{title}.parentNode.ariaSort") == way
                values = tab.run(
                    "[...document.querySelectorAll('table.classes tbody tr')].map(one => one.cells[5].textContent)"
                )
                assert values[-2:] == ["–", "–"]  # not measured is last either way
                assert [float(value) for value in values[:-2]] == sorted(
                    map(float, values[:-2]), key=lambda value: sign * value
                )
            tab.press("Enter")
            assert tab.run(SHOWN) == FEW

    def test_can_be_read_cell_by_cell_with_the_arrow_keys(self, browser, single):
        page, _ = single
        shown = Page(page.read_text()).table("shades classes")
        with browser.tab(page) as tab:
            tab.run("document.querySelector('table.classes tbody td:nth-child(2)').focus()")
            tab.press("ArrowDown")
            tab.press("ArrowRight", 2)
            readout = tab.run("document.querySelector('details .readout').textContent")
            assert readout == f"{shown[2][0]}, after 1: {shown[2][3]} %"

    def test_of_many_are_a_map_of_colours_that_reads_out_values(self, browser, compared):
        page, names = compared
        many = len(names) > 100
        with browser.tab(page) as tab:
            tab.run("document.querySelectorAll('details').forEach(one => one.open = true)")
            assert tab.run("document.querySelector('table.classes').classList.contains('heat')") is many
            heights = "[...document.querySelectorAll('table.classes tbody tr')].map(one => one.offsetHeight)"
            assert bool(np.median(tab.run(heights)) < 20) is many
            tab.run("document.querySelector('.classbox input[type=checkbox]').click()")
            assert bool(np.median(tab.run(heights)) < 20) is not many
            tab.point("table.classes tbody tr:nth-child(2) td:nth-child(3)")
            row = Page(page.read_text()).table("shades classes")[3]
            assert (
                tab.run("document.querySelector('details .readout').textContent")
                == f"{row[0]}, one-method after 0: {row[2]} %"
            )

    def test_are_confused_as_the_matrix_counts(self, browser, single):
        page, run = single
        confusion = run.confusions()[-1]
        with browser.tab(page) as tab:
            tab.run("document.querySelector('svg.confusion').focus()")
            tab.press("ArrowDown", 2)
            tab.press("ArrowRight")
            share = 100 * confusion[2, 1] / confusion[2].sum()
            readout = tab.run("document.querySelector('.wide:has(svg.confusion)').previousElementSibling.textContent")
            assert readout == f"{FEW[2]} is called {FEW[1]} in {share:.1f} % of its pixels"
            shown = "[...document.querySelectorAll('.switched section:not([hidden])')].map(one => one.dataset.name)"
            assert tab.run(shown) == [str(len(run.confusions()) - 1)]
            tab.run("document.querySelector('.switched input[value=\"0\"]').click()")
            assert tab.run(shown) == ["0"]
            names = "JSON.parse(document.querySelector('section:not([hidden]) svg.confusion').dataset.names).length"
            assert tab.run(names) == len(run.confusions()[0])
            assert tab.run("typeof hacked") == "undefined"
            assert tab.messages() == []


class TestTables:
    @pytest.mark.parametrize("name", ["results", "classes", "training-images", "plan"])
    def test_are_saved_as_csv_and_latex(self, browser, single, name):
        page, _ = single
        table = Page(page.read_text()).tables
        with browser.tab(page) as tab:
            links = f"[...document.querySelectorAll('p.links a')].filter(one => one.download.startsWith('{name}.'))"
            tab.run(
                f"{links}.forEach(one => {{ one.addEventListener('click', event => event.preventDefault()); one.click(); }})"
            )
            csv, latex = (unquote(href.split(",", 1)[1]) for href in tab.run(f"{links}.map(one => one.href)"))
        assert csv.count("\n") == latex.count(r"\\") == len(table[[*NAMED].index(name)])
        assert latex.startswith(r"\begin{tabular}{l")
        assert latex.splitlines()[-2:] == [r"\bottomrule", r"\end{tabular}"]
        if name == "classes":
            assert r"\$x\$ & 0 & " in latex
            assert '"""><img src=x onerror=\'hacked = 1\'>",2,' in csv
            assert "–" not in csv


NAMED = ("results", "samples", "classes", "plan", "training-images")
"""The tables of a page without published numbers."""


class TestTheOtherPages:
    def test_an_extension_compares_its_models_on_the_same_image(self, browser, tmp_path):
        row = {"name": "<i>new</i>", "result": "learned", "before": None, "after": 0.5, "agreement": None}
        chosen = {"name": "lwf", "chosen": True, "learned": 0.5, "agreed": 0.9, "score": 0.6, "seconds": 1.0, "note": ""}
        record = {
            "new": ["<i>new</i>"], "base": {"path": "a.safetensors"}, "method": "lwf", "candidates": [chosen],
            "seconds": 1.0, "images": {"train": 3, "held_out": 1, "keep": 0}, "memory_mb": 1.0, "stored_mb": 1.0,
            "warnings": ["few images"],
            "classes": [row], "disagreement": {"all": 0.1, "confident": None}, "notes": [], "commands": ["contseg predict"],
            "confusions": [{"of": "a", "as": "b", "share": 0.1, "estimate": False}], "provenance": {"base": "f00"},
        }  # fmt: skip
        before, after = (np.kron(ids, np.ones((24, 32))).astype(np.uint8) for ids in ([[0, 1], [0, 0]], [[0, 1], [0, 2]]))
        table = ClassTable.of(["background", "a", "<i>new</i>"])
        colours = np.array(table.colours, np.uint8)
        maps = (before, after, np.where(before == after, 255, after))
        old, new, difference = (label_map(ids, colours) for ids in maps)
        image = photo(np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8))
        write_page(tmp_path / "page.html", record, [Picture("a", 0.1, image, None, old, new, difference)], table)
        with browser.tab(tmp_path / "page.html", PHONE) as tab:
            assert tab.run("document.documentElement.scrollWidth") == PHONE
            names = "[...document.querySelectorAll('.panels figure:not([hidden]) strong')].map(one => one.textContent)"
            assert tab.run(names) == ["image", "old model", "new model"]  # there are no labels
            choose(tab, "changed")
            assert (panel(tab, 3)[24:, 32:] == colours[2]).all()
            assert tab.run("document.querySelectorAll('input[type=range]').length") == 1
            assert tab.run("document.querySelector('details.warnings').textContent").strip().endswith("few images")
            assert tab.messages() == []


def luminance(colour: str) -> float:
    """Of "rgb(r, g, b)", as contrast ratios of web pages have it."""
    parts = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    return float(np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])
