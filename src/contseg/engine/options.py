"""Training options of a recipe."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from contseg.options import (
    Amount,
    Count,
    Factor,
    Options,
    Processes,
    Seconds,
    Seed,
    Several,
    ShareAboveZero,
    ShareBelowOne,
)

Part = Literal["backbone", "head", "classifier"]


class TrainingOptions(Options):
    """Optimisation, precision and hardware.

    Attributes:
        epochs: number of epochs of every step, or a list with an entry per step, the last of which applies to all later
            steps. 0 requires a method that learns without updates (`Method.learns_without_updates`).
        batch: images per forward pass, summed over ranks.
        accumulate: forward passes per update. The update equals that of one batch of `batch` x `accumulate` images, except
            for batch norm in training and `scenario.memory.share`. Dropout follows the images.
            Methods with terms over the whole batch are refused (`Method.whole_batch_terms`).
        lr, lr_later: learning rate of step 0 and of later steps.
        lr_factors, lr_factors_later: multiples of the learning rate for parts of the segmenter, in step 0 and in later
            steps; by default later steps use those of step 0.
        optimiser: `sgd` or `adamw` (Loshchilov and Hutter, ICLR 2019).
        momentum, nesterov: options of SGD.
        betas: option of AdamW.
        weight_decay: applied to all parameters, including norms and biases, as published.
        layer_decay: multiple of the learning rate from each block of a backbone of vision transformer blocks to the block
            below it; what comes before the blocks has the rate of the first.
        layer_decay_spares: number of last blocks that keep the full rate; the others have what they have without it.
        no_decay: parameters without weight decay, by substrings of their names (Swin: absolute_pos_embed,
            relative_position_bias_table, norm).
        clip: maximum norm of all gradients together; none does not clip.
        average: the supervised loss is the mean over `all` pixels, where ignored ones count as 0, or over `valid` pixels;
            `valid` requires a method with plain cross-entropy.
        schedule: `poly` (1 - i/I)^power, `warm-poly` with a linear warm-up, `step` (x gamma at each milestone), `constant`,
            or `warm-twice` (EoMT): all but the backbone rises linearly and then falls as poly over the rest of the updates;
            the backbone waits meanwhile, rises next, and falls over what is left. It is computed per update and restarts in
            every step.
        power: of poly.
        floor: final share of the learning rate with poly.
        lr_min: minimum learning rate of every group (IDEC, LAG: 1e-6 with poly).
        warmup: share of the updates in the warm-up of `warm-poly` and the first one of `warm-twice`.
        warmup_updates, warmup_ratio: alternatively, number of updates in the warm-up, and its initial share of poly.
        backbone_warmup, backbone_warmup_updates: of the second warm-up of `warm-twice`, as a share or a number of updates.
        milestones: shares of the updates at which `step` multiplies by `gamma`.
        milestone_every: alternatively, the number of updates between milestones (IDEC on ADE20K).
        precision: `32`, `bf16-mixed`, `16-mixed` with gradient scaling, or `amp`: `16-mixed` on a GPU and `32` on a CPU,
            like published runs with automatic mixed precision.
        channels_last, compile: memory layout and `torch.compile`.
        features: `live` computes the whole network in every epoch. `cached` computes what a step does not change (a frozen
            backbone, or backbone and head) once for each image and keeps it in the run's folder until the end of the step;
            `cached-bf16` keeps it rounded to bf16. Both need a `data.pipeline` without random crops, such as `centre`.
        memory: `full` keeps all activations for backward. `lean` keeps the inputs of the blocks of the student's backbone
            and computes the insides of each block again in backward: the same gradients, for a forward pass more.
        keep: `last`, or the `best` epoch by mIoU on held-out validation images (`scenario.validation`), never on test. In
            steps that do not annotate old classes it is the mIoU of the new classes, which does not measure forgetting.
        seed: of all random draws in training.
        accelerator, devices, nodes: hardware; `devices` is the number of ranks per node.
        workers: processes that read images, per rank; 0 reads in the training process, `auto` depends on the cores (see
            `devices.workers_of`). Results do not depend on it.
        loggers: `tensorboard`, if it is installed, `wandb` and `mlflow`, see `contseg.engine.loggers`; [] for none.
        threads: CPU threads per rank; none uses PyTorch's default.
        deterministic: use only deterministic algorithms, so that the same seed gives the same weights on the same GPU and
            software. An operation without one ends the run with an error.
        timeout: seconds that ranks wait for each other before the run ends with an error that names the missing rank.
            It must exceed the longest work of a single rank, such as writing a state to a slow disk.
    """

    epochs: Count | Annotated[list[Count], Field(min_length=1)] = 30
    batch: Several = 24
    accumulate: Several = 1
    lr: Factor = 0.01
    lr_later: Factor = 0.001
    lr_factors: dict[Part, Amount] = Field({})
    lr_factors_later: dict[Part, Amount] | None = None
    optimiser: Literal["sgd", "adamw"] = "sgd"
    momentum: ShareBelowOne = 0.9
    nesterov: bool = True
    betas: Annotated[list[ShareBelowOne], Field(min_length=2, max_length=2)] = Field([0.9, 0.999])
    weight_decay: Amount = 1e-4
    layer_decay: ShareAboveZero = 1.0
    layer_decay_spares: Count = 0
    no_decay: list[Annotated[str, Field(min_length=1)]] = Field([])
    clip: Annotated[float, Field(gt=0, le=1e6)] | None = None
    average: Literal["all", "valid"] = "all"
    schedule: Literal["poly", "warm-poly", "step", "constant", "warm-twice"] = "poly"
    power: Factor = 0.9
    floor: ShareBelowOne = 0.0
    lr_min: Amount = 0.0
    warmup: ShareBelowOne = 0.05
    warmup_updates: Annotated[int, Field(ge=1, le=10**8)] | None = None
    warmup_ratio: ShareAboveZero = 1e-6
    backbone_warmup: ShareBelowOne = 0.1
    backbone_warmup_updates: Annotated[int, Field(ge=1, le=10**8)] | None = None
    milestones: list[ShareAboveZero] = Field([0.6, 0.85])
    milestone_every: Annotated[int, Field(ge=1, le=10**8)] | None = None
    gamma: ShareAboveZero = 0.1
    precision: Literal["32", "bf16-mixed", "16-mixed", "amp"] = "32"
    channels_last: bool = False
    compile: bool = False
    features: Literal["live", "cached", "cached-bf16"] = "live"
    memory: Literal["full", "lean"] = "full"
    keep: Literal["last", "best"] = "last"
    seed: Seed = 42
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Processes = 1
    nodes: Processes = 1
    workers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = 0
    threads: Processes | None = None
    loggers: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(["tensorboard"])
    deterministic: bool = False
    timeout: Seconds = 1800

    @field_validator("memory")
    @classmethod
    def _not_compiled(cls, value: str, info: ValidationInfo) -> str:
        if value == "lean" and info.data.get("compile"):
            raise ValueError("lean computes blocks again, which training.compile cannot; set one of the two")
        return value

    @field_validator("precision", mode="before")
    @classmethod
    def _number_as_word(cls, value: Any) -> Any:
        return "32" if value == 32 else value

    @property
    def ranks(self) -> int:
        """Number of processes that train, over all nodes."""
        return self.devices * self.nodes

    def epochs_of(self, step: int) -> int:
        """Epochs of a step.

        Example:
            >>> TrainingOptions(epochs=[30, 10]).epochs_of(4)
            10
        """
        return self.epochs if isinstance(self.epochs, int) else self.epochs[min(step, len(self.epochs) - 1)]

    def lr_of(self, step: int) -> float:
        """Learning rate at the start of a step."""
        return self.lr_later if step else self.lr

    def lr_factors_of(self, step: int) -> dict[Part, float]:
        """Multiples of the learning rate in a step."""
        return self.lr_factors if step == 0 or self.lr_factors_later is None else self.lr_factors_later


MACHINE_KEYS = frozenset({"accelerator", "devices", "nodes", "workers", "threads", "loggers", "timeout", "memory"})
"""Options that do not change what a run computes."""
