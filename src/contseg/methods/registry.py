"""Methods by name."""

from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from contseg.errors import ContsegError, did_you_mean
from contseg.methods.ewc import EWC
from contseg.methods.finetune import Finetune
from contseg.methods.frozen import Frozen
from contseg.methods.idec import IDEC
from contseg.methods.idec_released import IDECReleased
from contseg.methods.ilt import ILT
from contseg.methods.lag import LAG
from contseg.methods.lag_released import LAGReleased
from contseg.methods.lwf import LwF
from contseg.methods.lwf_mc import LwFMC
from contseg.methods.method import Method
from contseg.methods.mib import MiB
from contseg.methods.pi import PI
from contseg.methods.plop import PLOP
from contseg.methods.plop_released import PLOPReleased
from contseg.methods.rw import RW
from contseg.methods.sdr import SDR
from contseg.methods.sdr_released import SDRReleased
from contseg.methods.ssul import SSUL

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (Finetune, Frozen, LwF, LwFMC, ILT, EWC, PI, RW, MiB, PLOP, SDR, SSUL, IDEC, LAG)
}

RELEASED: dict[str, type[Method]] = {kind.name: kind for kind in (PLOPReleased, SDRReleased, IDECReleased, LAGReleased)}
"""Methods that have the two variants `paper` (in `METHODS`) and `released`, chosen by `method.variant`."""


def register_method(kind: type[Method]) -> type[Method]:
    """Make a method of your own known by its name, so that recipes can name it; to be used as a decorator.

    See docs/your-own-method.md.

    Raises:
        ContsegError: it has no name, the name is taken, or it is no frozen dataclass.

    Example:
        >>> from dataclasses import dataclass
        >>> @register_method
        ... @dataclass(frozen=True)
        ... class Hesitant(Finetune):
        ...     name = "hesitant"
        >>> make_method("hesitant")
        Hesitant()
        >>> del METHODS["hesitant"]
    """
    name = getattr(kind, "name", None)
    if not isinstance(name, str):
        raise ContsegError(f"{kind.__name__}: a method needs a name; give the class an attribute `name`")
    if METHODS.get(name, kind).__qualname__ != kind.__qualname__:
        raise ContsegError(f"{kind.__name__}: the name '{name}' is taken by {METHODS[name].__name__}; choose another")
    if not (is_dataclass(kind) and kind.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise ContsegError(
            f"{kind.__name__}: a method is a frozen dataclass; decorate it with @dataclass(frozen=True) first"
        )
    METHODS[name] = kind
    return kind


def make_method(name: str, **hyper_parameters: Any) -> Method:
    """A method by name, its hyper-parameters checked against their types.

    Raises:
        ContsegError: unknown method or hyper-parameter, or a value of the wrong kind.

    Example:
        >>> make_method("plop", pod=0.001, variant="released")
        PLOPReleased(pod=0.001, pod_logits=0.0005, bins=1000, floor=0.001)
        >>> make_method("plopp")
        Traceback (most recent call last):
        contseg.errors.ContsegError: method.name: unknown method 'plopp'; did you mean 'plop'? (known: ...)
    """
    if not isinstance(name, str):
        raise ContsegError(f"method.name: expected the name of a method (got {name!r})")
    if name not in METHODS:
        raise ContsegError(f"method.name: unknown method '{name}'; {did_you_mean(name, METHODS)}")
    kind = METHODS[name]
    variant = hyper_parameters.pop("variant", "paper") if name in RELEASED else "paper"
    if variant == "released":
        kind = RELEASED[name]
    elif variant != "paper":
        raise ContsegError(f"method.variant: expected 'paper' or 'released' (got {variant!r})")
    known = {field.name for field in fields(kind) if field.init} | ({"variant"} if name in RELEASED else set())
    hints: dict[str, Any] = get_type_hints(kind)
    for key, value in hyper_parameters.items():
        if key not in known:
            raise ContsegError(f"method.{key}: method '{name}' has no such hyper-parameter; {did_you_mean(key, known)}")
        try:
            hyper_parameters[key] = TypeAdapter(hints[key]).validate_python(value, strict=True)
        except ValidationError as error:
            raise ContsegError(f"method.{key}: {error.errors()[0]['msg']} (got {value!r})") from None
    return kind(**hyper_parameters)


def hyper_parameters(method: Method) -> dict[str, Any]:
    """The name and every hyper-parameter of a method, as a recipe writes them.

    Example:
        >>> hyper_parameters(MiB())
        {'name': 'mib', 'distillation': 10.0}
    """
    variant = {"variant": method.variant} if method.name in RELEASED else {}
    return (
        {"name": method.name} | variant | {field.name: getattr(method, field.name) for field in fields(method) if field.init}
    )
