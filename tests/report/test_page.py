"""The page of a run shows what its folder holds, and needs nothing else."""

import base64
import hashlib
import io
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.recipes.read import read_recipe, to_yaml
from contseg.report.comparison import compare_run, protocol_of
from contseg.report.figures import curves, run_style
from contseg.report.page import write_report
from tests.engine.runs import Guessing, interrupted, learn, tiny_recipe
from tests.report.pages import Page

STEPS = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    recipe = tiny_recipe("mib", "scenario.split=5-3-2", "training.epochs=1", 'note=a <b> & "c"')
    return learn(tmp_path_factory.mktemp("report") / "first", recipe, method=Guessing())


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Run:
    """A run of one step, as the joint upper bound is."""
    recipe = tiny_recipe("mib", "scenario.split=offline", "scenario.scored_as=5-3-2", "training.epochs=1")
    return learn(tmp_path_factory.mktemp("report") / "second", recipe, method=Guessing())


@pytest.fixture(scope="module")
def page(run) -> Page:
    return Page(write_report([run.folder], run.folder / "report.html").read_text(encoding="utf-8"))


def picture(uri: str) -> np.ndarray:
    kind, data = uri.split(",", 1)
    assert kind in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


class TestReferences:
    def test_nothing_is_fetched(self, page, run):
        assert page.references
        assert all(reference.startswith("data:image/") for reference in page.references)
        text = (run.folder / "report.html").read_text()
        style = re.search(r"<style>(.*)</style>", text, re.DOTALL)
        assert "url(" not in style[1]
        assert "@import" not in style[1]
        (script,) = re.findall("<script[^>]*>(.*?)</script>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}';" in text

    def test_every_picture_can_be_read_and_says_what_it_is(self, page):
        for image in page.images:
            assert image["alt"]
            if image["src"].startswith("data:image/svg"):
                ElementTree.fromstring(base64.b64decode(image["src"].split(",", 1)[1]))
            else:
                assert picture(image["src"]).size


class TestFigures:
    def test_the_table_equals_the_summary(self, page, run):
        header, row = page.table("figures")
        summary = run.summary()
        shown = dict(zip(header, row, strict=True))
        for name in ("old", "new", "all", "average", "forgetting", "harmonic"):
            assert shown[name] == f"{summary[name]:.1f}", name
        assert shown["all with background"] == f"{summary['all_with_background']:.1f}"
        assert list(shown) == ["run", "old", "new", "all", "forgetting", "average", "harmonic", "all with background"]
        assert shown["run"] == "first"

    def test_the_numbers_of_every_class_are_those_of_the_last_step(self, page, run):
        header, *rows = page.table("shades classes")
        assert header == ["class", "from step", "after 0", "after 1", "after 2", "forgetting"]
        iou = [line for line in run.metrics() if line["kind"] == "step"][-1]["iou"]
        assert [row[4] for row in rows] == ["–" if value is None else f"{100 * value:.1f}" for value in iou]
        assert [row[0] for row in rows][:2] == ["background", "zero"]
        assert [row[1] for row in rows] == ["0"] * 6 + ["1"] * 3 + ["2"] * 2
        assert [row[2] == "" for row in rows] == [False] * 6 + [True] * 5  # not known yet, which is no dash
        assert [row[5] for row in rows][-2:] == ["–", "–"]  # what came last cannot be forgotten yet

    def test_the_plan_is_told(self, page, run):
        rows = page.table("plan")[1:]
        assert [row[0] for row in rows] == ["0", "1", "2"]
        assert rows[1][1] == "five, six, seven"


class TestSamples:
    def test_there_is_a_row_per_image_with_a_prediction_after_every_step(self, page, run):
        rows = page.table("samples")
        with np.load(run.folder / "samples.npz") as saved:
            names = list(saved["names"])
        assert rows[0] == ["image", "truth", "after step 0", "after step 1", "after step 2"]
        assert [len(row) for row in rows[1:]] == [2 + STEPS] * len(names)
        alts = [image["alt"] for image in page.images]
        assert [alt for alt in alts if alt in names] == names
        for step in range(STEPS):
            assert alts.count(f"prediction after step {step}") == len(names)

    def test_truth_and_predictions_are_shown_in_class_colours(self, page, run):
        with np.load(run.folder / "samples.npz") as saved:
            colours = {tuple(colour) for colour in saved["colours"].tolist()} | {(225, 225, 225)}
            truth, image = saved["colours"][saved["truth0"]], saved["image0"]
        shown = [picture(entry["src"]) for entry in page.images if entry["alt"] == "truth"]
        for pixels in shown:
            assert {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()} <= colours
        first = np.array(Image.fromarray(shown[0]).resize(truth.shape[1::-1], Image.Resampling.NEAREST))
        assert (first == truth).all(axis=2).mean() > 0.95
        thumbnail = next(picture(entry["src"]) for entry in page.images if "title" in entry)
        back = np.array(Image.fromarray(thumbnail).resize(image.shape[1::-1], Image.Resampling.BILINEAR)).astype(int)
        assert abs(back - image).mean() < 12


class TestText:
    def test_what_users_write_is_text_and_no_markup(self, run, page):
        text = (run.folder / "report.html").read_text()
        assert "a <b>" not in text
        assert "a &lt;b&gt; &amp;" in text

    def test_recipe_and_environment_are_there(self, run, page):
        text = (run.folder / "report.html").read_text()
        assert "weight_decay: 0.0001" in text
        assert "torch" in text
        assert page.title == f"contseg: mib on {protocol_of(run)}"
        assert page.headings[0] == page.title.removeprefix("contseg: ")
        environment = json.loads((run.folder / "environment.json").read_text())
        assert f"<dt>date</dt><dd>{environment['date'][:10]}</dd>" in text
        assert f"<dt>plan</dt><dd>{run.summary()['plan']}</dd>" in text
        assert text.count(run.summary()["plan"]) == 2  # at the top and with the plan

    @pytest.mark.parametrize("name", ["<i>x</i>", "&lt;", "$a$ and $", "_hidden", "{{ 7 * 7 }}", "\"quoted'"], ids=str)
    def test_class_names_are_shown_literally(self, run, tmp_path, name):
        shutil.copytree(run.folder, tmp_path / "run")
        with np.load(run.folder / "samples.npz") as saved:
            samples = dict(saved)
        samples["classes"] = np.array([*samples["classes"][:-1], name])
        Run(tmp_path / "run").save_arrays("samples.npz", **samples)
        plan = (run.folder / "plan.json").read_text().replace('"nine"', json.dumps(name))
        Run(tmp_path / "run").write_text("plan.json", plan)
        page = Page(write_report([tmp_path / "run"], tmp_path / "page.html").read_text())
        for table in ("shades classes", "shades holding"):
            assert page.table(table)[-1][0] == name
        assert page.table("plan")[-1][1].endswith(name)

    def test_links_lead_to_sections_of_the_page(self, run, tmp_path):
        shutil.copytree(run.folder, tmp_path / "run")
        Run(tmp_path / "run").append_metrics({"kind": "step", "step": STEPS - 1, "warnings": ["background collapsed"]})
        page = Page(write_report([tmp_path / "run"], tmp_path / "page.html").read_text())
        assert page.anchors
        assert set(page.anchors) <= set(page.ids)
        assert page.ids == ["results", "figures", "images", "classes", "confusions", "training", "plan", "recipes"]

    def test_what_was_not_measured_is_a_dash_with_the_reason(self, run, tmp_path):
        shutil.copytree(run.folder, tmp_path / "run")
        for step in range(STEPS):
            name = f"steps/{step:02d}/confusion.npz"
            arrays = run.arrays(name)
            arrays["confusion"][1:6] = 0  # no test pixel of the classes of step 0
            Run(tmp_path / "run").save_arrays(name, **arrays)
        text = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
        page = Page(text)
        shown = dict(zip(*page.table("figures"), strict=True))
        assert shown["old"] == "–"
        assert "harmonic" not in shown  # an empty column
        assert "<em>harmonic</em>: not measured, it needs old and new" in text
        assert "step 0 is – at the end; after step 0 it was –." in text
        assert "<em>old</em>: not measured, no class of step 0 is labelled in the test set" in text
        assert [row[2] for row in page.table("shades classes")[2:7]] == ["–"] * 5

    def test_a_run_of_one_step_has_no_forgetting_and_the_page_says_why(self, run, other, tmp_path):
        text = write_report([run.folder, other.folder], tmp_path / "page.html").read_text()
        header, first, second = Page(text).table("figures")
        place = header.index("forgetting")
        assert (first[place] == "–", second[place]) == (False, "–")
        (note,) = re.findall('<p class="note"><strong>second</strong> (.*)</p>', text)
        assert "<em>forgetting</em>: not measured, after one step nothing could be forgotten" in note

    def test_it_is_the_same_when_written_again(self, run, page, tmp_path):
        again = write_report([run.folder], tmp_path / "again.html")
        assert again.is_absolute()
        assert list(Page(again.read_text()).tables) == page.tables


class TestSeveralRuns:
    def test_are_compared_in_one_table(self, run, other, tmp_path):
        page = Page(write_report([run.folder, other.folder], tmp_path / "page.html").read_text())
        rows = page.table("figures")[1:]
        assert [row[0] for row in rows] == ["first", "second"]
        assert rows[1][3] == f"{other.summary()['all']:.1f}"
        assert page.title == f"contseg: mib (2 runs) on {protocol_of(run)}"

    def test_of_one_plan_show_it_once_and_say_so(self, run, tmp_path):
        shutil.copytree(run.folder, tmp_path / "copy")
        plan = json.loads((run.folder / "plan.json").read_text())
        own = json.dumps(plan | {"warnings": ["a small batch"]})  # it differs from run to run
        Run(tmp_path / "copy").write_text("plan.json", own)
        text = write_report([run.folder, tmp_path / "copy"], tmp_path / "page.html").read_text()
        page = Page(text)
        assert page.names.count("plan") == page.names.count("shades holding") == 1
        assert "shared by all runs" in text
        assert "note on copy: a small batch" in text

    def test_of_two_plans_are_named_at_theirs(self, run, other, tmp_path):
        shutil.copytree(run.folder, tmp_path / "copy")
        text = write_report([run.folder, other.folder, tmp_path / "copy"], tmp_path / "page.html").read_text()
        assert Page(text).names.count("plan") == 2
        assert re.findall(r'<p class="note">of (.*)</p>', text) == ["first, copy", "second"]
        assert "shared by all runs" not in text

    def test_stand_next_to_each_other_beside_the_same_image(self, run, other, tmp_path):
        shutil.copytree(run.folder, tmp_path / "third")
        page = Page(write_report([run.folder, tmp_path / "third"], tmp_path / "page.html").read_text())
        rows = page.table("samples")
        assert rows[0] == ["image", "truth", "run", "after step 0", "after step 1", "after step 2"]
        assert [len(row) for row in rows[1:3]] == [6, 4]  # the image is next to the rows of both runs
        assert [row[-4] for row in rows[1:3]] == ["first", "third"]

    def test_of_the_same_classes_share_a_table_of_them(self, run, other, tmp_path):
        page = Page(write_report([run.folder, other.folder], tmp_path / "page.html").read_text())
        names, header, *rows = page.table("shades classes")
        assert names == ["", "", "first", "second"]
        assert header == ["class", "from step", "after 0", "after 1", "after 2", "forgetting", "after 0"]
        last = [[line for line in one.metrics() if line["kind"] == "step"][-1]["iou"] for one in (run, other)]
        shown = [[row[column] for row in rows] for column in (4, 6)]
        assert shown == [["–" if value is None else f"{100 * value:.1f}" for value in iou] for iou in last]

    def test_of_other_classes_have_tables_of_their_own(self, run, tmp_path):
        shutil.copytree(run.folder, tmp_path / "renamed")
        with np.load(run.folder / "samples.npz") as saved:
            renamed = dict(saved) | {"classes": np.array([f"c{number}" for number in range(11)])}
        Run(tmp_path / "renamed").save_arrays("samples.npz", **renamed)
        page = Page(write_report([run.folder, tmp_path / "renamed"], tmp_path / "page.html").read_text())
        assert page.names.count("shades classes") == 2
        assert page.names.count("samples") == 2

    def test_are_drawn_in_styles_of_their_own(self):
        styles = [tuple(run_style(place).items()) for place in range(21)]
        assert len(set(styles)) == 21
        many = curves(
            [{key: [0.5, 0.1] for key in ("all", "old", "new")}] * 25
        )  # more than there are styles: drawn all the same
        assert len(many) == 3

    @pytest.mark.parametrize("places", [("a/run", "b/run"), ("seed1/plop/run", "seed2/plop/run")], ids=str)
    def test_of_one_name_are_told_apart(self, run, other, tmp_path, places):
        for place, one in zip(places, (run, other), strict=True):
            shutil.copytree(one.folder, tmp_path / place)
        page = write_report([tmp_path / place for place in places], tmp_path / "page.html")
        rows = Page(page.read_text()).table("figures")[1:]
        assert [row[3] for row in rows] == [f"{one.summary()['all']:.1f}" for one in (run, other)]
        assert len({row[0] for row in rows}) == 2


class TestUnfinishedRuns:
    def test_are_shown_as_far_as_they_are(self, tmp_path):
        interrupted(tmp_path / "run", tiny_recipe("finetune"), "updated", 10)  # in step 1
        page = Page(write_report([tmp_path / "run"], tmp_path / "page.html").read_text())
        assert page.table("samples")[0] == ["image", "truth", "after step 0"]

    def test_without_a_finished_step_are_an_error(self, tmp_path):
        interrupted(tmp_path / "run", tiny_recipe("finetune"), "updated", 3)
        with pytest.raises(ContsegError, match="no step is finished yet, so there is nothing to report"):
            write_report([tmp_path / "run"], tmp_path / "page.html")
        assert not (tmp_path / "page.html").exists()

    def test_what_is_no_run_is_an_error(self, tmp_path):
        with pytest.raises(ContsegError, match="contains no run"):
            write_report([tmp_path], tmp_path / "page.html")


class TestPseudoLabels:
    ALT = "share of pixels per pseudo label and epoch"

    def test_are_drawn_where_a_run_has_them(self, run, tmp_path):
        with_some = learn(tmp_path / "plop", tiny_recipe("plop", "training.epochs=1"))
        page = Page(write_report([with_some.folder, run.folder], tmp_path / "page.html").read_text())
        (image,) = [entry for entry in page.images if entry["alt"] == self.ALT]
        drawing = base64.b64decode(image["src"].removeprefix("data:image/svg+xml;base64,")).decode()
        text = (tmp_path / "page.html").read_text()
        legend = re.search(
            r'<p class="legend">((?:(?!</p>).)*)</p>\s*<div class="wide[^>]*>\s*<picture>',
            text[text.index("Pseudo labels") :],
        )
        (_, line) = [line for line in with_some.metrics() if line["kind"] == "epoch"]
        assert line["pseudo"]
        assert set(re.findall("</i>([^<]*)</span>", legend[1])) == set(line["pseudo"])
        assert "<!-- step 1 -->" in drawing
        assert "Pseudo labels" in page.headings

    def test_of_training_images_are_shown_next_to_the_given_labels(self, run, tmp_path):
        with_some = learn(tmp_path / "plop", tiny_recipe("plop", "training.epochs=1"))
        text = write_report(with_some.folder, tmp_path / "page.html").read_text()
        names = with_some.arrays("steps/01/label_origins.npz")["names"]
        for alt in ("given labels of {}", "labels of {} in training", "replaced labels of {}"):
            assert all(f'alt="{alt.format(name)}"' in text for name in names)
        damaged = with_some.folder / "steps" / "01" / "label_origins.npz"
        damaged.write_bytes(b"no longer")
        assert "given labels of" not in write_report(with_some.folder, tmp_path / "page.html").read_text()

    def test_have_no_section_where_no_run_has_any(self, page):
        assert "Pseudo labels" not in page.headings
        assert self.ALT not in [image["alt"] for image in page.images]


class TestWarnings:
    def test_of_a_step_are_folded_into_one_line_before_all_results(self, run, tmp_path):
        shutil.copytree(run.folder, tmp_path / "run")
        said = [line | ({"warnings": ["fell to <10%"]} if line["kind"] == "step" else {}) for line in run.metrics()]
        Run(tmp_path / "run").write_text("metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in said))
        text = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
        notes = re.findall(r'<p class="warning">(.*)</p>', text)
        assert notes == [f"<strong>run</strong> after step {step}: fell to &lt;10%" for step in range(STEPS)]
        fold = re.search(r'<details class="warnings"><summary>(.*?)</summary>(.*?)</details>', text, re.DOTALL)
        assert fold[1] == f"{STEPS} warnings: read them before you quote a number"
        assert fold[2].count('class="warning"') == STEPS
        assert text.index('class="words"') < fold.start() < text.index('id="results"')

    def test_are_none_in_a_run_without(self, other, tmp_path):
        assert 'class="warning"' not in write_report([other.folder], tmp_path / "page.html").read_text()

    def test_of_runs_from_before_there_were_any_are_none(self, run, tmp_path):
        shutil.copytree(run.folder, tmp_path / "run")
        said = [{key: value for key, value in line.items() if key != "warnings"} for line in run.metrics()]
        Run(tmp_path / "run").write_text("metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in said))
        assert 'class="warning"' not in write_report([tmp_path / "run"], tmp_path / "page.html").read_text()


class TestPublishedNumbers:
    HEADING = "Published numbers"

    @pytest.fixture
    def pretend(self, run, tmp_path):
        """The folder of the run, which says to be of another recipe."""

        def make(source: str, *overrides: str) -> Run:
            shutil.copytree(run.folder, tmp_path / "run")
            Run(tmp_path / "run").write_text("recipe.yaml", to_yaml(read_recipe(source, overrides)))
            return Run(tmp_path / "run")

        return make

    def test_stand_beside_the_run_s_with_the_difference(self, pretend, tmp_path):
        folder = pretend("voc/plop_15-1_overlapped", "backbone_weights=resnet101.pth").folder
        text = write_report([folder], tmp_path / "page.html").read_text()
        page, summary = Page(text), Run(folder).summary()
        assert self.HEADING in page.headings
        header, first, *_ = page.table("published")
        assert header == [
            "source",
            "certainty",
            "comparable",
            "background",
            "old",
            "published",
            "new",
            "published",
            "all",
            "published",
        ]
        old, new, whole = (summary[key] for key in ("old_with_background", "new", "all_with_background"))
        assert first[:4] == ["PLOP repository, VOC table", "published", "yes", "counted"]
        assert first[4:6] == [f"{old:.1f}", f"65.1 ({old - 65.12:+.1f})"]
        assert first[6:8] == [f"{new:.1f}", f"21.1 ({new - 21.11:+.1f})"]
        assert first[8:] == [f"{whole:.1f}", f"54.6 ({whole - 54.64:+.1f})"]
        assert "not comparable" not in text

    def test_of_another_protocol_are_told_to_be_and_the_run_is_marked(self, pretend, tmp_path):
        changed = pretend("voc/plop_15-1_overlapped", "data.test_crop=null")
        text = write_report([changed.folder], tmp_path / "page.html").read_text()
        mark, *_ = re.findall(r'<p class="warning">(.*)</p>', text)
        assert mark == "<strong>run</strong> not comparable with published numbers: data.test_crop was 512, is none"
        assert (
            re.search(r"<summary>\d+ warnings?: read", text).start() < text.index(mark) < text.index(f"{self.HEADING}</h2>")
        )
        rows = Page(text).table("published")[1:]
        assert [row[2] for row in rows] == ["no"] * len(compare_run(changed))
        assert text.count("whole images are scored; published: crop 512") == 1

    def test_that_are_missing_are_a_dash(self, pretend, tmp_path):
        changed = pretend("voc/joint_15-1", "scenario.scored_as=null")
        header, row = Page(write_report([changed.folder], tmp_path / "page.html").read_text()).table("published")
        assert header[4:] == ["all", "published"]  # columns without any published number are left out
        assert row[5].startswith("77.4 (-")
        other = shutil.copytree(changed.folder, tmp_path / "other")
        Run(other).write_text("recipe.yaml", to_yaml(read_recipe("voc/plop_15-1_overlapped")))
        joint, *_ = Page(write_report([changed.folder, other], tmp_path / "page.html").read_text()).table("published")[1:]
        assert (joint[6], joint[8]) == ("–", "–")
        assert joint[10].startswith("77.4 (-")

    def test_have_no_section_where_there_are_none(self, page):
        assert self.HEADING not in page.headings

    def test_are_left_out_of_a_run_that_is_not_finished_but_its_mark_is_not(self, pretend, tmp_path):
        changed = pretend("voc/plop_15-1_overlapped", "data.test_crop=null")
        (changed.folder / "summary.json").unlink()
        text = write_report([changed.folder], tmp_path / "page.html").read_text()
        assert self.HEADING not in Page(text).headings
        assert "not comparable with published numbers" in text

    def test_are_left_out_of_a_run_of_a_method_that_is_not_registered_here(self, pretend, tmp_path):
        run = pretend("voc/plop_15-1_overlapped")
        folder, text = run.folder, (run.folder / "recipe.yaml").read_text()
        run.write_text("recipe.yaml", text.replace("name: plop", "name: somebody-s-own"))
        page = Page(write_report([folder], tmp_path / "page.html").read_text())
        assert self.HEADING not in page.headings
