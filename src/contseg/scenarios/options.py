"""Options of a scenario in a recipe."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from contseg.options import Options, PathText, Seed, Several, ShareAboveZero
from contseg.scenarios.policy import PolicyName, SettingName


class MemoryOptions(Options):
    """Replay memory: images of earlier steps, with the labels of their step.

    Attributes:
        size: number of images kept, over all old classes.
        mix: `share`: a fixed share of every batch is replaced by exemplars (SSUL-M: half);
            `sampling`: exemplars are added to the step's images and sampled like them.
        share: share of a batch, for `mix: share`.
        seed: random seed of the choice.
        choice: `turns`: classes take turns (SSUL-M); `balanced`: images whose classes are as frequent as in all steps so far
            (BalConpas), see `contseg.scenarios.balanced_memory`.
    """

    size: Several
    mix: Literal["share", "sampling"] = "share"
    share: float = Field(0.5, gt=0, lt=1)
    seed: Seed = 0
    choice: Literal["turns", "balanced"] = "turns"


class ScenarioOptions(Options):
    """Options of a scenario: which classes, domains and images each step has.

    Attributes:
        by: `class`: steps add classes; `domain`: all classes are known from step 0 and steps add domains (cities).
        split: classes (or domains) per step: "15-1", "2-2-1", "offline".
        scored_as: split whose class groups (old / new) are used to score an `offline` run; default: its own.
        setting: which images belong to a step, see `contseg.scenarios.selection`.
        order: order of the classes, see `class_order`.
        domains: `by: domain`: the domains in order of presentation; default: the dataset's order.
            `by: class`: the domain of each step's images; the last one is also used for all later steps.
        variant: `released`: `by: domain`, tests as published, including images that earlier steps were trained on;
            `by: class`, training images also annotate the first class of the next step, as in the released code of BalConpas
            and SimCIS (semantic labels only). `paper`: neither.
        lists: folder with a list of training images per step, used in place of `setting`, see `read_step_lists`.
        ratio: share of each later step's images that is used (data-limited protocol of LAG).
        ratio_choice: `first` of the list, as published, or a seeded `random` choice.
        memory: replay memory, or none.
        policy: label conventions, see `LabelPolicy`.
        saliency: folder of saliency maps, NAME.png, for policy `ssul`: salient background is unknown.
        ignore_test_background: do not score background and unseen classes (ADE20K under policy `plop`).
        validation: share of each step's training images that is held out, for `keep: best`.
        seed: random seed of the held-out images and of the random choice.
    """

    by: Literal["class", "domain"] = "class"
    split: str = "offline"
    scored_as: str | None = None
    setting: SettingName = "overlapped"
    order: str | list[int | str] = "natural"
    domains: list[str] | None = Field(None, min_length=1)
    variant: Literal["paper", "released"] = "paper"
    lists: PathText | None = None
    ratio: ShareAboveZero = 1.0
    ratio_choice: Literal["first", "random"] = "first"
    memory: MemoryOptions | None = None
    policy: PolicyName = "plop"
    saliency: PathText | None = None
    ignore_test_background: bool = False
    validation: float = 0.0
    seed: Seed = 0

    @field_validator("split", "scored_as", mode="before")
    @classmethod
    def _number_as_word(cls, value: Any) -> Any:
        return str(value) if type(value) is int else value  # checked later, when the number of classes is known

    @model_validator(mode="after")
    def _fit_together(self) -> "ScenarioOptions":
        if self.saliency and self.policy != "ssul":
            raise ValueError(f"saliency maps need policy ssul (policy is {self.policy}); remove saliency")
        if self.variant == "released" and self.by == "class" and (self.setting == "sequential" or self.policy == "ssul"):
            what = "setting: sequential" if self.setting == "sequential" else "policy: ssul"
            raise ValueError(
                f"variant released annotates a class of the next step, and {what} does not allow it; remove one"
            )
        if self.lists and (self.by == "domain" or self.setting == "partitioned"):
            raise ValueError("lists already assign images to steps; remove by: domain and setting: partitioned")
        return self
