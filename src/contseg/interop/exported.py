"""A segmenter as one program for any image size, from RGB to scores or ids: what the formats of an export have in common."""

import copy
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode

from contseg.data.classes import ClassTable
from contseg.errors import ContsegError
from contseg.interop.segmenter_file import describe
from contseg.models.averages import cell_means
from contseg.models.layers import resize
from contseg.models.output import score_map
from contseg.models.segmenter import Segmenter

INPUT, OUTPUTS = "images", ("scores", "ids")
TOLERANCE = 1e-4
"""Largest difference of a score from PyTorch's."""
LONGEST = 900.0
"""Seconds after which a tracing is given up."""
TRACED = (2, 121, 157)
"""Images of the tracing: odd sides that differ, so that sizes of maps that are equal are so for every image."""
CHECKED = ((1, 128, 128), (2, 97, 161), (1, 192, 144))
"""Images of the check: number, height and width."""


@dataclass(frozen=True)
class Export:
    """What is exported.

    Args:
        segmenter, classes: the segmenter and its classes in output order.
        argmax: ids of the class table, (B, H, W) uint8, in place of scores (B, K, H, W).
        tile: side of the images in pixels; default: images of any size.
        resolution: of the images for which the segmenter was trained, in cm per pixel; only described.
        source: where the segmenter comes from, as values that JSON supports.

    Raises:
        ContsegError: another number of classes than of outputs, `argmax` with an id above 255 or of a network that decides
            by owners, or a size or resolution that is not positive.
    """

    segmenter: Segmenter
    classes: ClassTable
    argmax: bool = False
    tile: int | None = None
    resolution: float | None = None
    source: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        outputs = sum(self.segmenter.widths) - self.segmenter.options.unknown
        if len(self.classes) != outputs:
            raise ContsegError(f"classes: {len(self.classes)} for a segmenter of {outputs} outputs; name each output once")
        if self.argmax and max(self.classes.ids) > 255:
            raise ContsegError(f"argmax: class id {max(self.classes.ids)} does not fit 8 bits; export scores")
        if self.argmax and self.segmenter.options.has_owners:
            raise ContsegError(
                "argmax: the network gives pixels to queries (network.head.decision), which is not exported; export scores,"
                " the sums over queries"
            )
        for name, value in (("tile", self.tile), ("resolution", self.resolution)):
            if value is not None and not 0 < value < 1e6:
                raise ContsegError(f"{name}: must be above 0 and below 1000000 (got {value})")

    def network(self) -> "FromRGB":
        """The network to export: a copy of the segmenter on CPU, in eval mode."""
        return FromRGB(self.segmenter, self.classes.ids if self.argmax else None).eval()

    def description(self) -> str:
        """Classes, network, input and output as JSON."""
        about = describe(self.segmenter, self.classes, self.source) | {
            "input": f"{INPUT}: RGB from 0 to 255, float32 (B, 3, H, W); it is normalised inside",
            "output": (
                "ids: ids of the classes, uint8 (B, H, W)" if self.argmax else "scores: of the classes, float32 (B, K, H, W)"
            ),
            "tile": self.tile,
            "resolution": self.resolution,
        }
        return json.dumps(about)


class FromRGB(nn.Module):
    """RGB from 0 to 255, float32 (B, 3, H, W), to scores (B, K, H, W) or ids (B, H, W), at the size of the images.

    Args:
        segmenter: it is copied.
        ids: the id of each class, for ids instead of scores.

    Example:
        >>> from contseg import NetworkOptions
        >>> network = FromRGB(Segmenter(NetworkOptions(backbone={"name": "resnet18", "width": 4}), [3]), [0, 7, 9]).eval()
        >>> ids = network(torch.full((1, 3, 40, 56), 128.0))
        >>> ids.dtype, ids.shape, bool(torch.isin(ids, torch.tensor([0, 7, 9])).all())
        (torch.uint8, torch.Size([1, 40, 56]), True)
    """

    ids: Tensor | None

    def __init__(self, segmenter: Segmenter, ids: tuple[int, ...] | list[int] | None = None):
        super().__init__()
        self.segmenter = copy.deepcopy(segmenter).cpu().float().requires_grad_(False)
        self.register_buffer("ids", None if ids is None else torch.tensor(ids, dtype=torch.uint8))

    def scores(self, images_BCHW: Tensor) -> Tensor:
        """Scores of the classes, (B, K, H, W)."""
        output = self.segmenter(self.segmenter.normalise(images_BCHW))
        size = (images_BCHW.shape[2], images_BCHW.shape[3])
        if output.masks is not None:  # resized before they become scores, as in evaluation
            return score_map(output.masks._replace(mask_logits=resize(output.masks.mask_logits, size)))
        return self.segmenter.scores(resize(output.logits, size))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """See the class."""
        scores = self.scores(images_BCHW)
        return scores if self.ids is None else self.ids[scores.argmax(dim=1)]


class _AnySize(TorchFunctionMode):
    """Replaces pooling whose kernel depends on the size of a map, also in networks of other libraries.

    It also ends a tracing after `LONGEST` seconds: sizes that depend on sizes in many layers may become expressions that
    PyTorch simplifies for hours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.end = time.monotonic() + LONGEST

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if time.monotonic() > self.end:
            raise TimeoutError(f"not finished after {LONGEST:.0f} s")
        if func is nn.functional.adaptive_avg_pool2d:
            x_BCHW, size = args if len(args) == 2 else (args[0], (kwargs or {})["output_size"])
            cells = (size, size) if isinstance(size, int) else tuple(size)
            if cells != (1, 1) and None not in cells:
                return cell_means(x_BCHW, cells)
        return func(*args, **(kwargs or {}))


def traced(network: FromRGB, tile: int | None) -> ExportedProgram:
    """The network as a program for any number of images, and for any size unless `tile` is set.

    Raises:
        ContsegError: PyTorch cannot trace it (with the reason).
    """
    count, *sides = TRACED
    example = torch.zeros(count, 3, *((tile, tile) if tile else sides))
    free = {0: Dim.DYNAMIC} if tile else {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    try:
        with torch.no_grad(), _AnySize():
            program = torch.export.export(
                network,
                (example,),
                dynamic_shapes=(free,),
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:  # tracing runs the code of any library, which may raise anything
        raise ContsegError(f"export: PyTorch cannot trace this network ({one_line(error)}){_advice(tile)}") from None
    _clean(program)
    return program


def _advice(tile: int | None) -> str:
    return "" if tile else "; it may be possible for one size: add --tile 512"


def _clean(program: ExportedProgram) -> None:
    """Remove assertions on sizes, which only repeat what held for the example, and the paths of source files."""
    for node in list(program.graph.nodes):
        node.meta.pop("stack_trace", None)
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()


def largest_difference(
    network: FromRGB, run: Callable[[Tensor], Tensor], tile: int | None, compared: Callable[[int], None] = lambda count: None
) -> float:
    """The largest difference of an export from PyTorch on three inputs.

    Ids may differ where the two best scores differ by less than twice the tolerance.

    Args:
        run: the export, images to scores or ids.
        compared: called with the number of inputs that were compared.

    Raises:
        ContsegError: it differs by more than `TOLERANCE` and the rounding of two computations, or cannot be run.
    """
    largest = 0.0
    draw = torch.Generator().manual_seed(0)
    inputs = ((1, tile, tile), (2, tile, tile), (1, tile, tile)) if tile else CHECKED
    for number, (count, *sides) in enumerate(inputs, start=1):
        images = torch.rand(count, 3, *sides, generator=draw) * 255
        with torch.no_grad():
            scores = network.scores(images)
        size = f"{count} x {sides[1]} x {sides[0]} pixels"
        try:
            found = run(images)
        except Exception as error:  # onnxruntime and programs of PyTorch raise errors of their own kinds
            raise ContsegError(f"export: cannot be run for {size} ({one_line(error)}){_advice(tile)}") from None
        difference = _difference(scores, found, network.ids)
        if not difference <= TOLERANCE and not difference <= TOLERANCE + 2 * _rounding(network, images, scores):
            what = f"differs from PyTorch by {difference:.1e} for {size}, more than {TOLERANCE:.0e}"
            raise ContsegError(f"export: {what}{_advice(tile)}")
        largest = max(largest, difference)
        compared(number)
    return largest


def _rounding(network: FromRGB, images_BCHW: Tensor, scores_BKHW: Tensor) -> float:
    """How far PyTorch itself is from its result in double precision, at most 10 times `TOLERANCE`.

    Large weights, as of a Gaussian head on features that hardly vary, amplify the rounding of every computation.
    """
    try:
        with torch.no_grad():
            exact = copy.deepcopy(network).double().scores(images_BCHW.double())
    except RuntimeError:  # a network of another library may be bound to float32
        return 0.0
    return min(float((scores_BKHW - exact).abs().max()), 10 * TOLERANCE)


def _difference(scores_BKHW: Tensor, found: Tensor, ids: Tensor | None) -> float:
    if ids is None:
        return float((scores_BKHW - found).abs().max()) if found.shape == scores_BKHW.shape else float("inf")
    best = scores_BKHW.topk(min(2, scores_BKHW.shape[1]), dim=1)
    wrong = (ids[best.indices[:, 0]] != found) & (best.values[:, 0] - best.values[:, -1] > 2 * TOLERANCE)
    return float(wrong.any())


def one_line(error: BaseException) -> str:
    """The message of an error in one line of at most 200 characters."""
    return " ".join((str(error) or type(error).__name__).split())[:200]


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings and logs of PyTorch's exporters; what they may mean is checked."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
