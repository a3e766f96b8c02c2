"""`contseg explain`: a page about a class, and a section of the run's report."""

import shutil

import numpy as np
import pytest

from contseg.engine.run import EXPLAIN, Run
from tests.engine.runs import Guessing, command, learn, tiny_recipe
from tests.report.pages import Page


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return learn(tmp_path_factory.mktemp("explain") / "run", tiny_recipe("mib", "training.epochs=1"), method=Guessing())


@pytest.fixture(scope="module")
def said(run) -> str:
    code, text, errors = command("explain", run.folder, "--class", "zero", "--images", "5")
    assert (code, errors) == (0, "")
    return text


def refused(*arguments, telling: str) -> None:
    code, _, errors = command("explain", *arguments)
    assert (code, len(errors.splitlines())) == (2, 1)
    assert telling in errors


def test_a_page_has_maps_before_and_after_the_step_and_no_request(run, said):
    page = Page((run.folder / "explain.html").read_text(encoding="utf-8"))
    assert page.title.startswith("contseg: why zero, step 1 of mib on digits 5-5")
    assert page.headings[1:] == ["Where zero is activated", "Features of regions", "Similar classes"]
    assert page.table("samples")[0] == ["image", "labelled", "before step 1", "after step 1"]
    assert {image["alt"] for image in page.images} >= {
        "activation of zero before step 1", "activation of zero after step 1", "pixels labelled zero",
    }  # fmt: skip
    assert all(reference.startswith("data:image/") for reference in page.references)
    assert set(page.anchors) <= set(page.ids)


def test_the_table_is_that_of_the_stored_means(run, said):
    page, arrays = Page((run.folder / "explain.html").read_text(encoding="utf-8")), run.arrays(EXPLAIN)
    header, *rows = page.table("similar")
    assert header == [
        "class",
        "regions",
        "before and after",
        "most similar before",
        "cosine",
        "most similar after",
        "cosine",
    ]
    assert [int(row[1]) for row in rows] == arrays["regions"][arrays["regions"] > 0].tolist()
    one, other = arrays["means_before"][0].astype(float), arrays["means_after"][0].astype(float)
    assert rows[0][2] == f"{one @ other / np.linalg.norm(one) / np.linalg.norm(other):.2f}"
    zero = next((row for row in rows if row[0] == "zero"), None)
    assert (f"zero is most like {zero[5]} (cosine" if zero else "No test image that was read has a region of zero.") in said


def test_the_report_has_it_as_a_section(run, said):
    code, _, errors = command("report", run.folder)
    assert (code, errors) == (0, "")
    page = Page((run.folder / "report.html").read_text(encoding="utf-8"))
    assert "Why" in page.headings
    assert "why" in page.anchors
    assert page.table("similar")


def test_a_first_step_has_no_before(run, said, tmp_path):
    out = tmp_path / "first.html"
    code, _, errors = command("explain", run.folder, "--class", "one", "--step", "0", "--images", "3", "--out", out)
    assert (code, errors) == (0, "")
    page = Page(out.read_text(encoding="utf-8"))
    assert page.table("samples")[0] == ["image", "labelled", "after step 0"]
    assert page.table("similar")[0] == ["class", "regions", "most similar after", "cosine"]


def test_a_class_of_the_step_itself_has_no_map_before_it(run, said, tmp_path):
    out = tmp_path / "new.html"
    code, _, _ = command("explain", run.folder, "--class", "seven", "--images", "3", "--out", out)
    assert code == 0
    assert Page(out.read_text(encoding="utf-8")).table("samples")[0] == ["image", "labelled", "after step 1"]
    assert "The model before the step does not know the class." in out.read_text(encoding="utf-8")


def test_mistakes_are_one_line(run, said, tmp_path):
    refused(run.folder, "--class", "zeroo", telling="--class: no class 'zeroo' after step 1")
    refused(run.folder, "--class", "zero", "--step", "2", telling="--step:")
    refused(run.folder, "--class", "seven", "--step", "0", telling="--class: no class 'seven' after step 0")
    (tmp_path / "notes.html").write_text("mine")
    refused(run.folder, "--class", "zero", "--out", tmp_path / "notes.html", telling="contseg did not write it")
    refused(tmp_path, "--class", "zero", telling="contains no run")


def test_a_damaged_file_leaves_the_report_without_the_section(run, said, tmp_path):
    shutil.copytree(run.folder, tmp_path / "copy")
    (tmp_path / "copy" / EXPLAIN).write_bytes(b"no")
    code, _, errors = command("report", tmp_path / "copy")
    assert (code, errors) == (0, "")
    assert "Why" not in Page((tmp_path / "copy" / "report.html").read_text(encoding="utf-8")).headings
