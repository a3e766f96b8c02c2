"""docs/your-own-method.md: what it says runs, and its method keeps the promises of all methods."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.methods.finetune import Finetune
from contseg.methods.registry import make_method, register_method
from tests.conftest import TINY

DOCUMENT = (Path(__file__).parent.parent / "docs" / "your-own-method.md").read_text(encoding="utf-8")
CODE = re.search(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)[1]


@pytest.mark.usefixtures("forgotten")
class TestOwnMethod:
    def test_the_example_trains_and_reports(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        tiny = [*TINY, "scenario.split=5-5", "training.batch=10", "training.epochs=1"]
        code = CODE.replace("pull: 3.0}", 'pull: 3.0}", *' + repr(tiny) + ', "name=own')
        assert code != CODE
        exec(compile(code, "your-own-method.md", "exec"), {"__name__": "__main__"})
        run = Run(tmp_path / "runs" / "careful")
        assert (run.folder / "report.html").is_file()
        later = next(line for line in run.metrics() if line["kind"] == "epoch" and line["step"] == 1)
        assert set(later["terms"]) == {"cross_entropy", "features"}
        assert make_method("careful", pull=1.0).pull == 1.0
        before = run.metrics()
        exec(compile(code, "your-own-method.md", "exec"), {"__name__": "__main__"})  # a second time
        assert run.metrics() == before

    def test_the_method_itself_is_about_forty_lines(self):
        body = CODE[CODE.index("@register_method") : CODE.index("if __name__")]
        assert len(body.strip().splitlines()) <= 45

    def test_a_name_that_is_taken_or_missing_is_told(self):
        @dataclass(frozen=True)
        class Mine(Finetune):
            name = "plop"

        with pytest.raises(ContsegError, match=r"Mine: the name 'plop' is taken by contseg.methods.plop:PLOP"):
            register_method(Mine)

        class Thawed(Finetune):
            name = 3

        with pytest.raises(ContsegError, match="Thawed: a method needs a name"):
            register_method(Thawed)


def test_every_function_that_the_document_names_is_there():
    for module, names in re.findall(r"`((?:losses|methods)\.\w+)`: ((?:`\w+`[^|;]*)+)", DOCUMENT):
        found = __import__(f"contseg.{module}", fromlist=["_"])
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(found, name), f"{module}.{name}"
