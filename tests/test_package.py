"""The wheel and the source archive are complete, and enough on their own."""

import importlib.metadata
import importlib.util
import os
import signal
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import contseg
from tests.engine.processes import wait_for

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def sources() -> set[str]:
    """Files of the package, relative to `src`."""
    found = (path for path in (ROOT / "src" / "contseg").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(ROOT / "src").as_posix() for path in found}


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> tuple[Path, Path]:
    """The wheel and the source archive."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True, capture_output=True
    )
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def test_one_version_everywhere():
    version = PROJECT["version"]
    assert contseg.__version__ == version
    assert f'version: "{version}"' in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{version}]" in changes
    assert changes.index("## [Unreleased]") < changes.index(f"## [{version}]")


def test_every_required_package_is_pinned():
    pinned = {
        line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    extras = [name for names in PROJECT["optional-dependencies"].values() for name in names]
    required = {requirement.partition(">=")[0].lower() for requirement in [*PROJECT["dependencies"], *extras]}
    assert required <= pinned


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("hatchling"), reason="pip install contseg[dev]")
class TestArchives:
    def test_hold_every_file_of_the_package(self, archives):
        wheel, sdist = archives
        assert {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("contseg/")} == sources()
        with tarfile.open(sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        assert {f"src/{name}" for name in sources()} <= names
        assert {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "pyproject.toml"} <= names

    def test_work_in_an_empty_environment(self, archives, tmp_path):
        venv.create(tmp_path / "venv", with_pip=True)
        python = tmp_path / "venv" / "bin" / "python"
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CONTSEG_CACHE")}

        def pip(*words: str) -> None:
            done = subprocess.run(
                [python, "-m", "pip", *words], env=environment, cwd=tmp_path, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr

        wheel, sdist = archives
        pip("install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), f"contseg[demo] @ {wheel.as_uri()}")
        pip("check")
        self.start_the_demo(python.parent / "contseg", tmp_path / "wheel", environment)
        pip("install", "--quiet", "--no-deps", "--force-reinstall", str(sdist))
        done = subprocess.run([python.parent / "contseg", "--version"], env=environment, capture_output=True, text=True)
        assert done.stdout == f"contseg {contseg.__version__}\n"

    def start_the_demo(self, contseg_command: Path, folder: Path, environment: dict[str, str]) -> None:
        """Start the demo and stop it after its first epoch."""
        folder.mkdir()
        log = folder / "log.txt"
        with log.open("w") as out:
            process = subprocess.Popen(
                [contseg_command, "demo", "digits"],
                cwd=folder,
                env=environment | {"CONTSEG_CACHE": str(folder / "cache")},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_for(lambda: "epoch 1/" in log.read_text(), process)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=120) == 130
        finally:
            process.kill()
        assert "contseg demo" in log.read_text().splitlines()[-1]  # how to continue

    def test_metadata_lists_the_versions_of_python_that_are_tested(self, archives):
        wheel, _ = archives
        name = next(name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("METADATA"))
        metadata = importlib.metadata.PathDistribution(zipfile.Path(wheel, f"{Path(name).parent}/")).metadata
        assert metadata["Requires-Python"] == ">=3.11"
        versions = [text for text in metadata.get_all("Classifier") if "Python :: 3." in text]
        assert versions == ["Programming Language :: Python :: 3.11"]
