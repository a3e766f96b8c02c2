"""Methods by name."""

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from contseg.errors import ContsegError, did_you_mean
from contseg.options import checked
from contseg.plugins import Registry

if TYPE_CHECKING:
    from contseg.methods.method import Method


def _require_method(kind: "type[Method]") -> None:
    if not (is_dataclass(kind) and kind.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise ContsegError(
            f"{kind.__name__}: a method is a frozen dataclass; decorate it with @dataclass(frozen=True) first"
        )


METHODS: "Registry[type[Method]]" = Registry(
    "methods",
    "method.name",
    {
        "finetune": "contseg.methods.finetune:Finetune",
        "frozen": "contseg.methods.frozen:Frozen",
        "dft": "contseg.methods.dft:DFT",
        "lwf": "contseg.methods.lwf:LwF",
        "lwf-mc": "contseg.methods.lwf_mc:LwFMC",
        "ilt": "contseg.methods.ilt:ILT",
        "ewc": "contseg.methods.ewc:EWC",
        "pi": "contseg.methods.pi:PI",
        "rw": "contseg.methods.rw:RW",
        "mib": "contseg.methods.mib:MiB",
        "plop": "contseg.methods.plop:PLOP",
        "rcil": "contseg.methods.rcil:RCIL",
        "reminder": "contseg.methods.reminder:REMINDER",
        "sdr": "contseg.methods.sdr:SDR",
        "ucd": "contseg.methods.ucd:UCD",
        "ssul": "contseg.methods.ssul:SSUL",
        "idec": "contseg.methods.idec:IDEC",
        "lag": "contseg.methods.lag:LAG",
        "dkd": "contseg.methods.dkd:DKD",
        "star": "contseg.methods.star:STAR",
        "adapter": "contseg.methods.adapter:Adapter",
        "mbs": "contseg.methods.mbs:MBS",
        "barm": "contseg.methods.barm:BARM",
        "pyramid": "contseg.methods.pyramid:Pyramid",
        "mib-masks": "contseg.methods.mib_masks:MiBMasks",
        "plop-masks": "contseg.methods.plop_masks:PLOPMasks",
        "comformer": "contseg.methods.comformer:CoMFormer",
        "balconpas": "contseg.methods.balconpas:BalConpas",
        "simcis": "contseg.methods.simcis:SimCIS",
        "gaussian": "contseg.methods.gaussian.gaussian:Gaussian",
        "cfsseg": "contseg.methods.gaussian.cfsseg:CFSSeg",
    },
    _require_method,
)
register_method = METHODS.register

RELEASED: "Registry[type[Method]]" = Registry(
    "released_methods",
    "method.variant",
    {
        "plop": "contseg.methods.plop_released:PLOPReleased",
        "reminder": "contseg.methods.reminder_released:REMINDERReleased",
        "sdr": "contseg.methods.sdr_released:SDRReleased",
        "idec": "contseg.methods.idec_released:IDECReleased",
        "dkd": "contseg.methods.dkd_released:DKDReleased",
        "star": "contseg.methods.star_released:STARReleased",
        "ucd": "contseg.methods.ucd_released:UCDReleased",
        "adapter": "contseg.methods.adapter_released:AdapterReleased",
        "lag": "contseg.methods.lag_released:LAGReleased",
        "mbs": "contseg.methods.mbs_released:MBSReleased",
        "barm": "contseg.methods.barm_released:BARMReleased",
        "cfsseg": "contseg.methods.gaussian.cfsseg_released:CFSSegReleased",
        "simcis": "contseg.methods.simcis_released:SimCISReleased",
    },
    _require_method,
)
"""Methods with a variant `released`, selected by `method.variant`; the variant `paper` is in `METHODS`."""


def make_method(name: str, **hyper_parameters: Any) -> "Method":
    """Make a method by name, and check the types of its hyper-parameters.

    `fusion="ewf"` puts EWF around the method and adds its hyper-parameters; `fusion=None` is no fusion.

    Raises:
        ContsegError: the method or a hyper-parameter is unknown, or a value has the wrong type.

    Example:
        >>> make_method("plop", pod=0.001, variant="released")
        PLOPReleased(pod=0.001, pod_logits=0.0005, bins=1000, floor=0.001)
        >>> make_method("mib", fusion="ewf")
        MiBWithEWF(distillation=10.0, fusion='ewf', fused_values='all', hold_old_classifiers=True)
        >>> make_method("plopp")
        Traceback (most recent call last):
        contseg.errors.ContsegError: method.name: unknown method 'plopp'; did you mean 'plop'? (known: ...)
    """
    if not isinstance(name, str):
        raise ContsegError(f"method.name: expected the name of a method (got {name!r})")
    METHODS.check(name)
    variant = hyper_parameters.pop("variant", "paper") if name in RELEASED else "paper"
    if variant not in ("paper", "released"):
        raise ContsegError(f"method.variant: expected 'paper' or 'released' (got {variant!r})")
    kind = METHODS[name] if variant == "paper" else RELEASED[name]
    if "fusion" in hyper_parameters and hyper_parameters["fusion"] is None:
        del hyper_parameters["fusion"]
    elif "fusion" in hyper_parameters and "fusion" not in kind.__dataclass_fields__:
        from contseg.methods.ewf import fused

        kind = fused(kind)
    known = {field.name for field in fields(kind) if field.init} | ({"variant"} if name in RELEASED else set())
    hints: dict[str, Any] = get_type_hints(kind, include_extras=True)
    for key, value in hyper_parameters.items():
        if key not in known:
            raise ContsegError(f"method.{key}: method '{name}' has no such hyper-parameter; {did_you_mean(key, known)}")
        hyper_parameters[key] = checked(f"method.{key}", hints[key], value)
    return kind(**hyper_parameters)


def hyper_parameters(method: "Method") -> dict[str, Any]:
    """The name and all hyper-parameters of a method, as in a recipe.

    Example:
        >>> hyper_parameters(make_method("mib"))
        {'name': 'mib', 'distillation': 10.0}
    """
    variant = {"variant": method.variant} if method.name in RELEASED else {}
    own = {field.name: getattr(method, field.name) for field in fields(method) if field.init}
    return {"name": method.name} | variant | own
