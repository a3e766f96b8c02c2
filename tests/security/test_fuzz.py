"""`make fuzz` runs: every target takes the inputs that are made for it."""

from collections import Counter

import pytest

from benchmarks import fuzz


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_a_target_answers_its_inputs(monkeypatch, name):
    monkeypatch.setattr(fuzz, "ROUND", 5)
    counts = Counter()
    fuzz.test_of(name, 0, counts)()
    assert counts[name] >= 5


def test_an_input_that_is_not_refused_in_one_line_is_reported(monkeypatch, capsys):
    inputs, _ = fuzz.TARGETS["split"]
    monkeypatch.setattr(fuzz, "TARGETS", {"split": (inputs, lambda text: fuzz.allowed(int, text))})
    monkeypatch.setattr(fuzz, "has_atheris", lambda: False)
    assert fuzz.main(0.1) == 1
    assert "split: ValueError: invalid literal" in capsys.readouterr().out
