"""Programs of figures on a GPU, of scaling and of compilation: their parts at tiny sizes, and what the page shows."""

import os
from dataclasses import replace

import pytest
import torch

from benchmarks import compiled, gpu, scaling
from benchmarks.page import PAGE, block
from benchmarks.presence import Counted, planning
from benchmarks.results import FOLDER, Results
from benchmarks.steps import DEFAULT
from contseg.engine.options import TrainingOptions
from contseg.models.options import NetworkOptions

TINY = replace(
    DEFAULT,
    network=NetworkOptions(backbone={"name": "resnet18", "width": 8}, head={"width": 16}),
    crop=64,
    images=2,
    device="cpu",
    training=TrainingOptions(precision="bf16-mixed", channels_last=True),
)
MADE = {
    "cpu": "A", "cores": 2, "threads": 2, "gpu": None, "versions": {"torch": "2"}, "commit": "abc", "date": "2026-01-02",
}  # fmt: skip


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results.json")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_one_line_and_exit_code_2(capsys):
    assert gpu.main([]) == 2
    assert capsys.readouterr().err == "benchmarks.gpu: PyTorch finds no GPU here; run it on a machine with one\n"


@pytest.mark.parametrize("name", gpu.CASES)
def test_absolute_figures_of_a_method(name):
    figures = gpu.absolute(gpu.CASES[name], TINY, repeats=1)
    first, later, test = figures["seconds"]
    assert figures["value"] == pytest.approx(2 / later)
    assert figures["share of bare"] > 0
    assert figures["GiB"] is None  # of a GPU only
    assert figures["hours"] == pytest.approx(gpu.hours(gpu.CASES[name], 2, first, later, test))


def test_hours_are_those_of_the_published_steps():
    assert gpu.images_of_steps() == [9568, 487, 299, 491, 500, 548]
    # 30 epochs of 398 updates in step 0, then of 20 + 12 + 20 + 20 + 22; and six tests on 1449 images
    seconds = gpu.hours(gpu.CASES["mib"], 24, first=1.0, later=2.0, test=0.1) * 3600
    assert seconds == pytest.approx(30 * 398 + 2 * 30 * 94 + 6 * 1449 * 0.1)


def test_a_ratio_is_measured_on_the_device(monkeypatch):
    made = []

    def pair():
        made.append(torch.zeros(1).device.type)
        return (lambda: None), (lambda: sum(range(1000)))

    monkeypatch.setattr(gpu, "measurement", lambda row: pair)
    assert gpu.ratio_on("pod", "meta")["pairs"] == 10
    assert made == ["meta"]


def test_figures_of_a_gpu_that_runs_out_of_memory_are_a_note(results, monkeypatch):
    def full(case, setting):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(gpu, "absolute", full)
    monkeypatch.setattr(gpu, "ratio_on", lambda name, device: None)
    gpu.measure_all("cpu", results, TINY, batches=(24,))
    assert "| PLOP | 24 | does not fit into the memory | - | - | - |" in gpu.gpu_block(results)
    assert "| PLOP | 12 |  |  |  |  |" in gpu.gpu_block(results)


@pytest.mark.parametrize(
    "make",
    [
        lambda: scaling.with_classes("mib", 301, TINY),
        lambda: scaling.with_steps("idec", 3, TINY),
        lambda: scaling.with_side("plop", 64**2, TINY),
        lambda: scaling.draws_of(100),
        lambda: planning(Counted(classes=20, train=200, test=50), "15-1", 6),
    ],
    ids=["classes", "steps", "pixels", "draws", "plan"],
)
def test_every_size_can_be_measured(make):
    make()()


@pytest.mark.parametrize("steps", [2, 11, 41])
def test_a_network_has_as_many_steps_as_its_size_states(steps):
    work = scaling.with_steps("mib", steps, TINY)
    widths = work.__self__.updater.student.widths
    assert (len(widths), sum(widths)) == (steps, 84)


def test_points_are_kept_and_not_measured_again(results, monkeypatch):
    calls = []
    curve = scaling.Curve("work", "classes", (10, 1000), lambda value: lambda: calls.append(value))
    monkeypatch.setattr(scaling, "origin", lambda: MADE)
    scaling.measure_all(results, {"a": curve}, repeats=1)
    scaling.measure_all(results, {"a": curve}, repeats=1)
    assert calls == [10, 10, 1000, 1000]


def test_what_is_worse_than_linear_is_marked(results, tmp_path):
    curve = scaling.Curve("work", "classes", (10, 100), lambda value: lambda: None)
    for value, seconds in ((10, 1.0), (100, 100.0)):
        results.keep(f"a, {value}", {"value": seconds}, MADE)
    text = scaling.scaling_block(results, {"a": curve, "b": curve})
    assert "| work | classes | 10, 100 | 1.00, 100 | 2.00 | worse than linear |" in text
    assert "| work | classes | 10, 100 | -, - | - |  |" in text
    scaling.draw(results, tmp_path / "plot.png", {"a": curve})
    assert (tmp_path / "plot.png").stat().st_size > 1000


@pytest.mark.slow
def test_one_and_two_processes_are_compared(results, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent / "src"), os.environ.get("PYTHONPATH", "")]))
    small = [*scaling.TRAIN[:2], "data.options={train: 40, test: 4, size: 32}", "data.crop=32", *scaling.TRAIN[4:]]
    scaling.measure_processes(results, 1, [*small, "network.width=4", "network.head_width=8"])
    kept = results["processes"]
    assert kept["value"] == pytest.approx(kept["two"] / kept["one"] / 2)


@pytest.mark.slow
def test_gains_of_compiled_parts():
    network = {"backbone": {"name": "resnet18", "width": 4}, "head": {"width": 8}}
    for make in (lambda: compiled.student(network, 32), lambda: compiled.teacher(network, 32), lambda: compiled.losses(32)):
        figures = compiled.measure(make, pairs=1)
        assert figures["value"] > 0


def test_the_page_shows_what_is_kept():
    text = (FOLDER.parent / PAGE).read_text(encoding="utf-8")
    assert block(text, "gpu") == gpu.gpu_block(Results(gpu.RESULTS))
    assert block(text, "scaling") == scaling.scaling_block(Results(scaling.RESULTS))
    assert block(text, "compiled") == compiled.compiled_block(Results(compiled.RESULTS))
