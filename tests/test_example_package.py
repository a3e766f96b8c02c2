"""examples/contseg-example: built, installed and used from outside, with a method, a dataset, a backbone and a head."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.processes import wait_for

SOURCE = Path(__file__).parent.parent / "examples" / "contseg-example"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory, own_cache) -> Path:
    """A folder with the wheel of the package, built and installed without a network."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    offline = ["--no-deps", "--no-index"]
    subprocess.run([*PIP, "wheel", *offline, "--no-build-isolation", "-w", folder / "wheels", folder / "source"], check=True)
    (wheel,) = (folder / "wheels").glob("*.whl")
    subprocess.run([*PIP, "install", *offline, "--target", folder / "site", wheel], check=True)
    return folder / "site"


@pytest.fixture
def process(installed, tmp_path):
    """Starts `contseg` in an empty folder, in which the package is importable."""
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(installed)])

    def start(*arguments, package: bool = True) -> subprocess.Popen:
        words = [sys.executable, "-m", "contseg", *map(str, arguments)]
        environment = os.environ | ({"PYTHONPATH": path} if package else {})
        return subprocess.Popen(
            words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return start


@pytest.fixture
def contseg(process):
    def run(*arguments, code: int = 0, package: bool = True) -> str:
        started = process(*arguments, package=package)
        told, _ = started.communicate(timeout=600)
        assert started.returncode == code, told
        return told

    return run


def test_the_package_is_used_through_the_whole_command_line(installed, process, contseg, tmp_path):
    code = "from pathlib import Path; from contseg_example.dataset import Shapes; Shapes.write_stand_in(Path('s'))"
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(installed)])
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=os.environ | {"PYTHONPATH": path})
    data = ("--data", "s")
    assert "example/careful_2-1" in contseg("recipes", "--dataset", "shapes")
    assert "dataset: shapes" in contseg("recipes", "show", "example/careful_2-1")
    assert "shapes 2-1 by class" in contseg("plan", "example/careful_2-1", *data)
    assert " ok" in contseg("dry-run", "example/careful_2-1")

    # killed in its first step, it goes on from there, in two ranks with a reader each
    ranks = ("training.devices=2", "training.workers=1", "training.batch=2")
    running = process("train", "example/careful_2-1", *data, *ranks, "training.epochs=[12, 1]", "--out", "run", "--no-cache")
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) >= 2, running)
    running.send_signal(signal.SIGTERM)
    told, _ = running.communicate(timeout=600)
    assert running.returncode == 143, told
    assert "contseg train --resume run" in told
    assert "plugins:\n- contseg_example\n" in (tmp_path / "run" / "recipe.yaml").read_text()
    # a run of an installed package names it where it is missing
    told = contseg("train", "--resume", "run", code=2, package=False)
    assert told.startswith("error: plugins: contseg_example: no module named 'contseg_example'; install it, ")
    assert told.count("\n") == 1

    assert "careful" in contseg("train", "--resume", "run", "--no-cache")
    epochs = [line for line in map(json.loads, metrics.read_text().splitlines()) if line["kind"] == "epoch"]
    assert [set(line["terms"]) for line in epochs] == [{"cross_entropy"}] * 12 + [{"cross_entropy", "features"}]
    assert "waves" in contseg("evaluate", "run")
    assert "6 images" in contseg("predict", "run", "s/pictures/test", "--out", "predicted")
    assert "report" in contseg("report", "run")
    assert "run" in contseg("table", "run")


def test_an_option_of_another_part_is_refused(contseg):
    told = contseg("plan", "example/careful_2-1", "network.head.pooling_size=8", code=2)
    assert "network.head: sum-of-stages has no key 'pooling_size' (got 8)" in told
    told = contseg("plan", "example/careful_2-1", "network.backbone.output_stride=8", code=2)
    assert "network.backbone: small-cnn has no key 'output_stride' (got 8)" in told
