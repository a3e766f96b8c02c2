"""What is watched while a step is learned: losses, terms, and what labels become. Nothing here waits for the device."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.errors import ContsegError
from contseg.methods.method import Method
from contseg.ranks import Ranks
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step

IGNORED = "ignored"
UNKNOWN = "unknown"


class LossWatch:
    """Stops training when a loss is not finite, on whichever rank it is.

    A loss is read one iteration late, when the device has long computed it, so that reading it costs no waiting.

    Args:
        rate: the key of the step's learning rate and its value, for the advice.
        last: the loss that was read last in the epoch before; not a number where there was none.

    Attributes:
        last: the newest loss that was read.
    """

    def __init__(self, step: int, epoch: int, rate: tuple[str, float], last: float = math.nan):
        self._step, self._epoch, self._rate = step, epoch, rate
        self._pending: tuple[dict[str, Tensor], Batch, int] | None = None
        self.last = last

    def see(self, terms: dict[str, Tensor], batch: Batch, iteration: int) -> None:
        """Remember this iteration's terms and read those of the one before.

        Raises:
            ContsegError: a term is not finite; says which, where, and on which samples.
        """
        self.flush()
        self._pending = ({name: value.detach() for name, value in terms.items()}, batch, iteration)

    def flush(self) -> None:
        """Read what is pending."""
        if self._pending is None:
            return
        terms, batch, iteration = self._pending
        self._pending = None
        values = dict(zip(terms, torch.stack(list(terms.values())).tolist(), strict=True))
        self.last = sum(values.values())
        if not math.isfinite(self.last):
            bad = ", ".join(f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)) or "their sum"
            raise ContsegError(
                f"loss is not finite at step {self._step}, epoch {self._epoch}, batch {iteration} ({bad});"
                f" samples {', '.join(batch.names)}; {self._advice(iteration)}"
            )

    def _advice(self, iteration: int) -> str:
        """What helps: not a resume, which begins with the weights and keeps the rate that led here."""
        key, rate = self._rate
        if iteration == 0:
            return "no update was made yet, so look at these samples and at the weights that the step began with"
        return f"a resume would meet it again; start anew with --overwrite and a lower rate, such as {key}={rate / 10:.2g}"


class TermWatch:
    """Compares what the terms of a step train with what the method declares (`Method.inert_terms`).

    Args:
        told: gets one line when terms first occur that train nothing by design.

    Example:
        >>> from contseg.methods.finetune import Finetune
        >>> class Odd(Finetune):
        ...     inert_terms = frozenset({"aside"})
        >>> watch = TermWatch(Odd(), 1, print)
        >>> terms = {"cross_entropy": torch.ones(1, requires_grad=True).sum(), "aside": torch.tensor(0.5)}
        >>> watch.see(terms)
        step 1: term aside trains nothing in this variant, by design
        >>> watch.see(terms)
    """

    def __init__(self, method: Method, step: int, told: Callable[[str], None]):
        self._method, self._step, self._tell = method, step, told
        self._known: set[str] = set()

    def see(self, terms: Mapping[str, Tensor]) -> None:
        """Look at the terms of an iteration.

        Raises:
            ContsegError: a term reaches no trainable parameter and is not declared, or reaches one against its declaration.
        """
        declared = self._method.inert_terms
        for name, value in terms.items():
            if value.requires_grad == (name in declared):
                what, way = (
                    ("is declared in inert_terms and reaches a trainable parameter", "take it out of inert_terms")
                    if value.requires_grad
                    else ("reaches no trainable parameter", "drop it, or declare it in inert_terms")
                )
                raise ContsegError(f"method {self._method.name}: term '{name}' {what} at step {self._step}; {way}")
        new = [name for name in terms if name in declared and name not in self._known]
        if new:
            self._known.update(new)
            what = f"term {new[0]} trains" if len(new) == 1 else f"terms {', '.join(new)} train"
            self._tell(f"step {self._step}: {what} nothing in this variant, by design")


class PseudoLabelCount:
    """How many pixels of an epoch got another label by `Method.relabel`; counted on the device, read at the end.

    Args:
        names: of the outputs, in order.
        before: `counts` of the part of the epoch before an interruption.

    Attributes:
        counts: pixels that got each label, then those ignored, then those that kept theirs; of this rank.

    Example:
        >>> count = PseudoLabelCount(["background", "cat", "dog"], torch.device("cpu"))
        >>> count.see(torch.tensor([[[0, 0, 0, 2]]]), torch.tensor([[[1, 255, 0, 2]]]))
        >>> count.shares(Ranks())
        {'cat': 0.25, 'ignored': 0.25}
    """

    def __init__(self, names: Sequence[str], device: torch.device, before: Tensor | None = None):
        self._names = (*names, IGNORED)
        # last, the pixels that keep their label
        self.counts = torch.zeros(len(self._names) + 1, dtype=torch.int64, device=device) if before is None else before

    @classmethod
    def of(
        cls, method: Method, step: Step, teacher: object | None, device: torch.device, before: Tensor | None = None
    ) -> "PseudoLabelCount | None":
        """A new count, or None where nothing is relabelled: the method does not, or there is no teacher."""
        if teacher is None or type(method).relabel is Method.relabel:
            return None
        return cls(([UNKNOWN] if step.has_unknown else []) + list(step.table.names), device, before)

    def see(self, before: Tensor, after: Tensor) -> None:
        """Labels (B, H, W) as they came and as the method left them."""
        if after is before:
            self.counts[-1] += after.numel()
            return
        kept = len(self._names)
        became = after.where(after != IGNORE, kept - 1).where(after != before, kept).flatten()
        # not bincount, which waits for the device to learn the highest label
        self.counts.scatter_add_(0, became, self.counts.new_ones(()).expand_as(became))

    def shares(self, ranks: Ranks) -> dict[str, float]:
        """Label -> pixels that got it / all pixels of all ranks so far, without labels that none got; `ignored` is 255."""
        counts = ranks.sum(self.counts).tolist()
        return {name: count / sum(counts) for name, count in zip(self._names, counts, strict=False) if count}
