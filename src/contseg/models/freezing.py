"""Freezing parts of a network."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from contseg.models.classifier import GrowingClassifier
from contseg.models.mask_classifier import MaskClassifier

GROWING = (GrowingClassifier, MaskClassifier)


def is_norm(module: nn.Module) -> bool:
    """Whether a layer is a normalisation, of any kind."""
    return isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm)) or type(module).__name__.startswith("RmsNorm")


def freeze_modules(modules: Iterable[nn.Module]) -> None:
    """Freeze modules: no gradients, fixed norm statistics, and no dropout.

    `train()` and `requires_grad_()` undo it; call it again after them.
    """
    for module in modules:
        module.requires_grad_(False)
        module.eval()


def freeze_parameters(network: nn.Module, names: Collection[str], norms: bool, dropout: bool = False) -> None:
    """Freeze the named parameters of a network, with `norms` all of its norms; with `dropout` none is active."""
    for name, parameter in network.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    if norms:
        freeze_modules(module for module in network.modules() if is_norm(module))
    if dropout:
        freeze_modules(module for module in network.modules() if isinstance(module, _DropoutNd))


def parameters_below(network: nn.Module, parts: Iterable[str]) -> set[str]:
    """Names of the parameters of some modules (dotted names)."""
    prefixes = tuple(f"{part}." for part in parts)
    return {name for name, _ in network.named_parameters() if name.startswith(prefixes)}


def parameters_of_old_classes(network: nn.Module) -> set[str]:
    """Names of the parameters of every growing classifier, without those of its newest step."""
    classifiers = [name for name, module in network.named_modules() if isinstance(module, GROWING)]
    counts = {name: len(network.get_submodule(f"{name}.steps")) for name in classifiers}  # type: ignore[arg-type]
    return parameters_below(network, [f"{name}.steps.{step}" for name in classifiers for step in range(counts[name] - 1)])


def parameters_except(network: nn.Module, steps: Collection[int]) -> set[str]:
    """Names of all parameters except those of some steps of every growing classifier.

    Args:
        steps: positions among a classifier's steps; -1 is the newest.
    """
    learning = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, GROWING)
        for part in (*(module.steps[step] for step in steps), *reserved_of(module))
        for parameter in part.parameters()
    }
    return {name for name, parameter in network.named_parameters() if id(parameter) not in learning}


def reserved_of(classifier: nn.Module) -> list[nn.Module]:
    """What a classifier reserves for later steps, see `GrowingClassifier.reserve`."""
    return [classifier.later] if isinstance(classifier, GrowingClassifier) else []


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and back after it.

    Example:
        >>> layer = nn.Dropout()
        >>> with evaluating(layer):
        ...     layer.training
        False
        >>> layer.training
        True
    """
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
