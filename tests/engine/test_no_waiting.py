"""An update never makes the host wait for the device: on a CPU by looking at every operation, on a GPU by PyTorch itself."""

import pytest
import torch

from contseg.engine.update import Updater
from contseg.methods.registry import METHODS, RELEASED
from tests.engine.runs import learn, tiny_recipe
from tests.engine.waiting import Waits
from tests.kinds import PIXELS

CASES = [(name, "paper") for name in PIXELS] + [(name, "released") for name in RELEASED if name in PIXELS]
ALLOWED = {
    # The released code of IDEC compares vectors of as many values as it finds, and leaves out those of unequal lengths.
    ("idec", "released"): {("index of a mask", "losses/contrast.py:_first_positives")},
}
VARIANTS = ("paper", "released")
# Pixels of new classes are compared alone, as many as there are.
ALLOWED |= {
    ("reminder", variant): {
        ("index of a mask", "losses/similarity.py:<genexpr>"),
        ("index of a mask", "losses/similarity.py:similarity_distillation"),
        ("index_put of a mask", "engine/update.py:_forward_backward"),
    }
    for variant in VARIANTS
}
# Pixels of classes are compared with each other: their square would not fit if background were among them.
ALLOWED |= {
    ("ucd", variant): {
        ("index of a mask", "methods/ucd.py:<listcomp>"),
        ("index of a mask", "methods/ucd.py:positions"),
        ("index_put of a mask", "engine/update.py:_forward_backward"),
    }
    for variant in VARIANTS
}
# Patches of old classes are compared with tokens alone, as many as there are.
ALLOWED |= {
    ("mbs", variant): {
        ("index of a mask", "losses/tokens.py:token_overlap"),
        ("index_put of a mask", "engine/update.py:_forward_backward"),
    }
    for variant in VARIANTS
}
# The numbers of features to draw are those of labels of the batch, and the draws are made on the host.
ALLOWED |= {
    (name, variant): {
        ("__int__", "methods/star.py:draw"),
        ("_local_scalar_dense", "methods/star.py:draw"),
        ("from the host", "methods/star.py:draw"),
        ("from the host", "precision.py:precise"),
        ("repeat_interleave", "losses/replay.py:fake_features"),
    }
    for name in ("star", "adapter")
    for variant in VARIANTS
}
IDRNET = ["network.head=fcn", "network.idrnet={attention_width: 8}", "network.dropout=0.0"]


def waits_of(monkeypatch, folder, recipe) -> list[tuple[str, str]]:
    """What the updates of a run wait for."""
    update, waits = Updater.update, Waits()

    def watched(self, *arguments):
        with waits:
            return update(self, *arguments)

    monkeypatch.setattr(Updater, "update", watched)
    learn(folder, recipe)
    return waits.seen


def recipe_of(name: str, *overrides: str):
    short = ["training.epochs=1"] if METHODS[name].updates_later_steps else []
    return tiny_recipe(name, "data.options={train: 30, test: 6, size: 48}", *short, *overrides)


@pytest.mark.parametrize(("name", "variant"), CASES, ids=lambda value: value)
def test_of_a_method(monkeypatch, tmp_path, name, variant):
    seen = waits_of(monkeypatch, tmp_path / "run", recipe_of(name, *["method.variant=released"] * (variant == "released")))
    assert set(seen) == ALLOWED.get((name, variant), set())


@pytest.mark.parametrize(
    "overrides",
    [
        IDRNET,
        ["training.accumulate=2", "training.batch=5"],
        ["training.clip=1.0"],
        ["training.optimiser=adamw", "training.lr=0.001", "training.lr_later=0.001"],
        ["training.precision=bf16-mixed"],
        ["training.channels_last=true"],
    ],
    ids=str,
)
def test_of_an_option(monkeypatch, tmp_path, overrides):
    assert not waits_of(monkeypatch, tmp_path / "run", recipe_of("mib", *overrides))


@pytest.mark.parametrize(
    ("what", "work"),
    [
        ("item", lambda x: x.sum().item()),
        ("tolist", lambda x: x.tolist()),
        ("cpu", lambda x: x.cpu()),
        ("__bool__", lambda x: bool(x.any())),
        ("__float__", lambda x: float(x.sum())),
        ("numpy", lambda x: x.numpy()),
        ("to the host", lambda x: x.to("cpu")),
        ("nonzero", lambda x: x.nonzero()),
        ("nonzero", lambda x: torch.where(x > 0)),
        ("index of a mask", lambda x: x[x > 0]),
        ("index_put_ of a mask", lambda x: x.__setitem__(x > 0, torch.ones(3))),
        ("bincount", lambda x: torch.bincount(x.long())),
        ("_unique2", lambda x: x.unique()),
        ("masked_select", lambda x: x.masked_select(x > 0)),
        ("tensor on a device", lambda x: torch.tensor([1.0], device=x.device)),
        ("from the host", lambda x: torch.rand(3, generator=torch.Generator()).to(x.device)),
        ("a list as index", lambda x: x[[0, 1]]),
        ("_linalg_check_errors", lambda x: torch.linalg.inv(x.diag())),
    ],
)
def test_the_check_finds(what, work):
    with Waits() as waits:
        work(torch.ones(3))
    assert what in [operation for operation, _ in waits.seen]


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.to("cpu", non_blocking=True).tolist(),
        lambda x: int(torch.randint(5, (1,), generator=torch.Generator())),
        lambda x: torch.rand(3, generator=torch.Generator()).to(x.device, non_blocking=True),
        lambda x: x.__setitem__(x > 0, 0.5),
        lambda x: x[torch.zeros(2, dtype=torch.long)],
        lambda x: (x.where(x > 0, 0) + torch.full((3,), 2.0, device=x.device)).sum(),
    ],
)
def test_the_check_leaves_alone_what_does_not_wait(work):
    with Waits() as waits:
        work(torch.ones(3))
    assert not waits.seen


def test_the_check_sees_the_backward_pass():
    class Reading(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * gradient.sum().item()

    x = torch.ones(3, requires_grad=True)
    with Waits() as waits:
        Reading.apply(x).sum().backward()
    assert waits.seen


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("name", "variant"), [case for case in CASES if case not in ALLOWED], ids=lambda value: value)
def test_of_a_method_on_a_gpu(monkeypatch, tmp_path, name, variant):
    update, made = Updater.update, []

    def watched(self, *arguments):
        made.append(True)
        first = len(made) == 1 or self.step.index != made_in[-1]  # the first update of a step allocates and moves its state
        made_in.append(self.step.index)
        torch.cuda.set_sync_debug_mode("default" if first else "error")
        try:
            return update(self, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    made_in: list[int] = []
    monkeypatch.setattr(Updater, "update", watched)
    released = ["method.variant=released"] * (variant == "released")
    learn(tmp_path / "run", recipe_of(name, "training.accelerator=cuda", "training.workers=0", *released))
    assert made
