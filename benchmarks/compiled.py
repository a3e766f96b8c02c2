"""What `torch.compile` brings for student, teacher and losses, per backbone.

    python -m benchmarks.compiled    # into benchmarks/results-compiled.json and docs/performance.md; continues

A gain is the time without compilation / the time with it, the median of pairs in turn; the first call compiles and is
reported in seconds. Small crops, so that a CPU is done in minutes; there, one thread works and its processor time counts,
which other programs hardly change.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.page import PAGE, markdown, number, write_block
from benchmarks.results import FOLDER, Results, described, origin
from benchmarks.timing import Work, in_pairs, timed
from contseg.losses.cross_entropy import unbiased_cross_entropy
from contseg.losses.distillation import unbiased_distillation
from contseg.models.layers import resize
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

RESULTS = FOLDER / "results-compiled.json"
CROP, IMAGES, CLASSES, OLD = 128, 2, 21, 16
NETWORKS: dict[str, dict[str, Any]] = {
    "ResNet-50": {"backbone": "resnet50"},
    "Swin-Tiny": {"backbone": "swin_tiny", "head": "upernet"},
    "ConvNeXt-Tiny": {"backbone": "convnext_tiny", "head": "upernet"},
}
Made = tuple[Work, Work]


def student(options: Mapping[str, Any], crop: int = CROP) -> Made:
    """Forward and backward in training mode: without compilation, and with it."""
    plain, compiled = _twins(options)
    images = torch.randn(IMAGES, 3, crop, crop)

    def run(network: Segmenter) -> None:
        network.zero_grad(set_to_none=True)
        network(images).logits.square().mean().backward()

    return (lambda: run(plain.train())), (lambda: run(compiled.train()))


def teacher(options: Mapping[str, Any], crop: int = CROP) -> Made:
    """Forward in evaluation mode: without compilation, and with it."""
    plain, compiled = (network.eval().requires_grad_(False) for network in _twins(options))
    images = torch.randn(IMAGES, 3, crop, crop)

    @torch.no_grad()
    def run(network: Segmenter) -> None:
        network(images)

    return (lambda: run(plain)), (lambda: run(compiled))


def _twins(options: Mapping[str, Any]) -> tuple[Segmenter, Segmenter]:
    """Two equal segmenters, the second one compiled."""
    networks = []
    for _ in range(2):
        torch.manual_seed(0)
        networks.append(Segmenter(NetworkOptions(**options), [CLASSES]))
    networks[1].compile()
    return networks[0], networks[1]


def losses(crop: int = CROP) -> Made:
    """The losses of MiB at full size with their backward pass: without compilation, and with it."""
    logits = torch.randn(IMAGES, CLASSES, crop // 16, crop // 16, requires_grad=True)
    old, labels = torch.randn(IMAGES, OLD, crop // 16, crop // 16), torch.randint(0, CLASSES, (IMAGES, crop, crop))

    def terms(logits_BKHW: torch.Tensor, old_BOHW: torch.Tensor) -> torch.Tensor:
        size = (crop, crop)
        supervised = unbiased_cross_entropy(resize(logits_BKHW, size), labels, OLD).mean()
        return supervised + unbiased_distillation(resize(logits_BKHW, size), resize(old_BOHW, size)).mean()

    fast = torch.compile(terms)

    def run(function: Callable[..., torch.Tensor]) -> None:
        torch.autograd.grad(function(logits, old), logits)

    return (lambda: run(terms)), (lambda: run(fast))


def works() -> dict[str, Callable[[], Made]]:
    """What is measured, by name."""
    made: dict[str, Callable[[], Made]] = {}
    for title, options in NETWORKS.items():
        made[f"{title}, student"] = partial(student, options)
        made[f"{title}, teacher"] = partial(teacher, options)
    return made | {"losses of MiB": losses}


def measure(make: Callable[[], Made], pairs: int = 5) -> dict[str, Any]:
    """Gain, seconds of both, and seconds of the first call, which compiles."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    plain, compiled = make()
    timed(plain, clock)
    first = timed(compiled)
    found = in_pairs(plain, compiled, pairs, clock)
    return {"value": found.ratio, "seconds": [found.ours, found.yardstick], "first": first - found.yardstick}


def compiled_block(results: Results) -> str:
    """The table of gains."""
    rows, sources = [], {}
    for name in works():
        kept = results[name]
        if kept is None or kept["value"] is None:
            rows.append([name, "-", "-", "-", (kept or {}).get("note", "-")])
            continue
        rows.append([name, number(kept["value"]), *map(number, kept["seconds"]), number(kept["first"])])
        sources[described(kept["origin"])] = None
    titles = ["part", "gain", "seconds without", "seconds with", "seconds to compile"]
    return "\n\n".join([markdown(titles, rows), *(["\n".join(f"* {one}" for one in sources)] if sources else [])])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the page; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiled", description=__doc__.partition("\n")[0])
    parser.add_argument("--only-page", action="store_true", help="measure nothing, write the page of what is kept")
    parser.add_argument("--page", type=Path, default=PAGE, help="page with the table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results, made = Results(RESULTS), origin()
    for name, make in {} if options.only_page else works().items():
        if results.is_current(name, made):
            continue
        try:
            figures = measure(make)
        except Exception as error:  # compilers fail in many ways, and the others may succeed
            figures = {"value": None, "note": f"fails: {type(error).__name__}"}
        results.keep(name, figures, made)
        print(name, figures, flush=True)
    write_block("compiled", compiled_block(results), options.page)
    print(compiled_block(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
