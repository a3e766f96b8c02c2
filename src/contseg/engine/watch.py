"""Checks during training: losses, terms and pseudo labels. None of them makes the device wait."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.engine.options import TrainingOptions
from contseg.errors import ContsegError
from contseg.methods.method import Method
from contseg.ranks import Ranks
from contseg.scenarios.step import Step

IGNORED = "ignored"
UNKNOWN = "unknown"


class LossWatch:
    """Stops training before the update if a loss is not finite on any rank.

    On a GPU the terms are copied to the host as soon as the forward pass has computed them. `require_finite` waits only for
    this copy, while the device computes the backward pass and stays busy.

    Attributes:
        last: the loss of the newest pass.

    Example:
        >>> watch = LossWatch(0, TrainingOptions(lr=0.1))
        >>> watch.read({"cross_entropy": torch.tensor(1.5)})
        >>> watch.require_finite(epoch=0, iteration=0, samples=["a"])
        >>> watch.last
        1.5
    """

    def __init__(self, step: int, options: TrainingOptions):
        self._step, self._key = step, "training.lr_later" if step else "training.lr"
        self._rate = options.lr_of(step)
        self._names: tuple[str, ...] = ()
        self._values = torch.zeros(0)
        self._copied: torch.cuda.Event | None = None
        self.last = math.nan

    def read(self, terms: Mapping[str, Tensor]) -> None:
        """Start to copy the terms of a pass to the host; call it before the backward pass."""
        self._names, values = tuple(terms), torch.stack([value.detach() for value in terms.values()])
        self._values = values.to("cpu", non_blocking=True)
        if values.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def require_finite(self, epoch: int, iteration: int, samples: Sequence[str]) -> None:
        """Raise ContsegError unless the terms that were read and their sum are finite; call it before the update.

        Args:
            samples: names of the images of the pass.

        Raises:
            ContsegError: names the terms, the epoch, the batch and the samples.
        """
        if self._copied is not None:
            self._copied.synchronize()
        values = dict(zip(self._names, self._values.tolist(), strict=True))
        self.last = sum(values.values())
        if not math.isfinite(self.last):
            bad = ", ".join(f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)) or "their sum"
            raise ContsegError(
                f"loss is not finite at step {self._step}, epoch {epoch}, batch {iteration} ({bad});"
                f" samples {', '.join(samples)}; {self._advice(iteration)}"
            )

    def _advice(self, iteration: int) -> str:
        """What to do. A resume would not help, as it has the same weights and learning rate."""
        if iteration == 0:
            return "no update was made yet; check these samples and the initial weights"
        return (
            "a resume would fail again; start over with --overwrite and a lower rate, such as"
            f" {self._key}={self._rate / 10:.2g}"
        )


class TermWatch:
    """Checks that exactly the terms in `Method.inert_terms` reach no trainable parameter.

    Args:
        report: receives one line when declared terms first occur.

    Example:
        >>> from contseg.methods.finetune import Finetune
        >>> class Odd(Finetune):
        ...     inert_terms = frozenset({"aside"})
        >>> watch = TermWatch(Odd(), 1, print)
        >>> terms = {"cross_entropy": torch.ones(1, requires_grad=True).sum(), "aside": torch.tensor(0.5)}
        >>> watch.check(terms)
        step 1: term aside trains nothing in this variant, by design
        >>> watch.check(terms)
    """

    def __init__(self, method: Method, step: int, report: Callable[[str], None]):
        self._method, self._step, self._report = method, step, report
        self._known: set[str] = set()

    def check(self, terms: Mapping[str, Tensor]) -> None:
        """Check the terms of a pass.

        Raises:
            ContsegError: a term reaches no trainable parameter and is not declared, or is declared and reaches one.
        """
        declared = self._method.inert_terms
        for name, value in terms.items():
            if value.requires_grad == (name in declared):
                what, way = (
                    ("is declared in inert_terms and reaches a trainable parameter", "remove it from inert_terms")
                    if value.requires_grad
                    else ("reaches no trainable parameter", "remove it, or declare it in inert_terms")
                )
                raise ContsegError(f"method {self._method.name}: term '{name}' {what} at step {self._step}; {way}")
        new = [name for name in terms if name in declared and name not in self._known]
        if new:
            self._known.update(new)
            what = f"term {new[0]} trains" if len(new) == 1 else f"terms {', '.join(new)} train"
            self._report(f"step {self._step}: {what} nothing in this variant, by design")


class PseudoLabelCount:
    """Counts the pixels of an epoch that `Method.relabel` changed; on the device until the end of the epoch.

    Args:
        names: names of the outputs, in order.
        before: `counts` of the epoch before an interruption.

    Attributes:
        counts: pixels of this rank that were changed to each label, then those changed to ignored, then unchanged ones.

    Example:
        >>> pseudo = PseudoLabelCount(["background", "cat", "dog"], torch.device("cpu"))
        >>> pseudo.count(torch.tensor([[[0, 0, 0, 2]]]), torch.tensor([[[1, 255, 0, 2]]]))
        >>> pseudo.shares(Ranks())
        {'cat': 0.25, 'ignored': 0.25}
    """

    def __init__(self, names: Sequence[str], device: torch.device, before: Tensor | None = None):
        self._names = (*names, IGNORED)
        # the last entry counts unchanged pixels
        self.counts = torch.zeros(len(self._names) + 1, dtype=torch.int64, device=device) if before is None else before

    @classmethod
    def of(
        cls, method: Method, step: Step, teacher: object | None, device: torch.device, before: Tensor | None = None
    ) -> "PseudoLabelCount | None":
        """A new counter, or None without a teacher or `Method.relabel`."""
        if teacher is None or type(method).relabel is Method.relabel:
            return None
        return cls(([UNKNOWN] if step.has_unknown else []) + list(step.table.names), device, before)

    def count(self, before: Tensor, after: Tensor) -> None:
        """Add the labels (B, H, W) of a batch, before and after `Method.relabel`; masks of a teacher as `painted`."""
        if after is before:
            self.counts[-1] += after.numel()
            return
        unchanged = len(self._names)
        labels = after.where(after != IGNORE, unchanged - 1).where(after != before, unchanged).flatten()
        # not bincount, which waits for the device to determine the highest label
        self.counts.scatter_add_(0, labels, self.counts.new_ones(()).expand_as(labels))

    def shares(self, ranks: Ranks) -> dict[str, float]:
        """Shares of the pixels of all ranks that were changed to each label, without zeros; `ignored` is 255."""
        counts = ranks.sum(self.counts).tolist()
        return {name: count / sum(counts) for name, count in zip(self._names, counts, strict=False) if count}
