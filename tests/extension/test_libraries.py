"""Models of other libraries are extended like our own."""

import pytest
import torch

from contseg.extension.extend import extend
from contseg.extension.forget import forget
from contseg.recipes.models import open_model
from tests.extension.squares import write_squares
from tests.trees.foreign import NAMES, save_foreign


@pytest.mark.parametrize(
    ("library", "method"),
    [
        pytest.param("segformer", "gaussian", marks=pytest.mark.slow),
        ("segformer", "lwf"),
        ("smp-unet", "gaussian-columns"),
        ("lraspp", "gaussian-columns"),
        pytest.param("lraspp", "gaussian-expanded", marks=pytest.mark.slow),
    ],
)
def test_a_model_of_another_library_is_extended_and_opened_again(tmp_path, library, method, monkeypatch):
    monkeypatch.setattr("contseg.extension.learn.LEAST", 2)
    monkeypatch.setattr("contseg.extension.learn.EPOCHS", 1)
    model = save_foreign(library, tmp_path / "model")
    data = write_squares(tmp_path / "data", ["blue"], count=4)
    done = extend(model, data, tmp_path / "out", method=method, minutes=2)
    opened = open_model(tmp_path / "out")
    assert opened.classes.names == (*NAMES, "blue")
    assert opened.source["inference"] == open_model(model).inference.options.model_dump(mode="json")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        new = opened.segmenter(images).logits
        assert torch.equal(new, done.segmenter(images).logits)
        if method == "gaussian-columns":
            assert torch.equal(new[:, :4], open_model(model).segmenter(images).logits)
    forget(tmp_path / "out", "blue", tmp_path / "without")
    assert open_model(tmp_path / "without").classes.names == NAMES
