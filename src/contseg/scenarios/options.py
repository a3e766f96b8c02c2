"""What a recipe says about a scenario."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from contseg.scenarios.policy import PolicyName, SettingName


class MemoryOptions(BaseModel):
    """Replay memory: images of earlier steps that stay at hand, with the labels they had there.

    Attributes:
        size: images kept, over all old classes together.
        mix: `share`: in every batch this part of the images is replaced by exemplars (SSUL-M: half);
            `sampling`: exemplars join the step's images and are drawn like them.
        share: of a batch, for `share`.
        seed: of the choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size: int = Field(ge=1)
    mix: Literal["share", "sampling"] = "share"
    share: float = Field(0.5, gt=0, lt=1)
    seed: int = Field(0, ge=0)


class ScenarioOptions(BaseModel):
    """What is learned when.

    Attributes:
        by: `class`: steps bring classes; `domain`: all classes are there from the start and steps bring domains (cities).
        split: classes (or domains) per step: "15-1", "2-2-1", "offline".
        scored_as: the split whose class groups (old / new) an `offline` run is scored with; default: its own.
        setting: which images a step may use, see `contseg.scenarios.selection`.
        order: order of the classes, see `class_order`.
        domains: `by: domain`: the domains in order of presentation, default the dataset's order;
            `by: class`: the domain of each step's images, the last of which also serves the steps after it.
        variant: `released` tests by domain as published, on images that earlier steps were trained on; `paper` does not.
        lists: folder with a list of training images per step, in place of `setting`, see `read_step_lists`.
        ratio: share of each later step's images that may be used (data-limited protocol of LAG).
        ratio_choice: `first` of the list, as published, or a seeded `random` choice.
        memory: replay memory, or none.
        policy: label conventions, see `LabelPolicy`.
        saliency: folder of saliency maps, NAME.png, for policy `ssul`: salient background is unknown.
        ignore_test_background: do not score background and unseen classes (ADE20K under policy `plop`).
        validation: share of each step's training images held out, for `keep: best`.
        seed: of the held-out and of the random choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    by: Literal["class", "domain"] = "class"
    split: str = "offline"
    scored_as: str | None = None
    setting: SettingName = "overlapped"
    order: str | list[int | str] = "natural"
    domains: list[str] | None = Field(None, min_length=1)
    variant: Literal["paper", "released"] = "paper"
    lists: str | None = None
    ratio: float = Field(1.0, gt=0, le=1)
    ratio_choice: Literal["first", "random"] = "first"
    memory: MemoryOptions | None = None
    policy: PolicyName = "plop"
    saliency: str | None = None
    ignore_test_background: bool = False
    validation: float = 0.0
    seed: int = Field(0, ge=0)

    @field_validator("split", "scored_as", mode="before")
    @classmethod
    def _number_as_word(cls, value: Any) -> Any:
        return str(value) if type(value) is int else value  # whether it is a split is told with the number of classes

    @model_validator(mode="after")
    def _fit_together(self) -> "ScenarioOptions":
        if self.saliency and self.policy != "ssul":
            raise ValueError(f"saliency maps belong to policy ssul (policy is {self.policy}); leave saliency out")
        if self.variant == "released" and self.by != "domain":
            raise ValueError("variant released is about tests by domain; set by: domain, or leave it out")
        if self.lists and (self.by == "domain" or self.setting == "partitioned"):
            raise ValueError("lists say which image serves which step by themselves; leave by: domain and partitioned out")
        return self
