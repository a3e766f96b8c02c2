"""docs/background.md: the functions exist, the named methods use them, the sums are as shown."""

import doctest
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from contseg.methods.registry import METHODS

PAGE = (Path(__file__).parent.parent / "docs" / "background.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| [^|]+ \| ([^|]+) \|.* `([a-z_]+\.[a-z_]+)\.([\w.]+)` \|$", PAGE, re.MULTILINE)
STARTS = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE, re.MULTILINE))


@pytest.mark.parametrize(("users", "module", "name"), [row for row in ROWS if "." not in row[2]], ids=lambda value: value)
def test_the_methods_that_are_named_use_the_function(users, module, name):
    assert inspect.isfunction(getattr(import_module(f"contseg.{module}"), name))
    for user in re.sub(r" on MiB", "", users).split(", "):
        sources = [inspect.getsource(inspect.getmodule(base)) for base in METHODS[user.lower()].__mro__[:-1]]
        assert any(name in source for source in sources), user


def test_rows_are_read():
    assert len(ROWS) >= 8


@pytest.mark.parametrize("method", METHODS)
def test_where_new_classes_start_is_as_listed(method):
    listed = [start for start, methods in STARTS.items() if f"`{method}`" in methods]
    assert METHODS[method].new_classes_start_from == (listed or ["random"])[0]


def test_the_sums_are_as_shown():
    test = doctest.DocTestParser().get_doctest(PAGE.replace("```", ""), {}, "background.md", None, None)
    assert len(test.examples) > 8
    assert doctest.DocTestRunner().run(test).failed == 0
