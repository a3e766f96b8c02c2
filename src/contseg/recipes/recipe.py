"""The typed recipe: everything that a run is, in one frozen object."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from contseg.engine.options import TrainingOptions
from contseg.evaluation.options import InferenceOptions
from contseg.models.options import NetworkOptions
from contseg.scenarios.options import ScenarioOptions


class JitterOptions(BaseModel):
    """Colour jitter, see `contseg.data.pipelines.augment.Jitter`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0


Side = Annotated[int, Field(ge=8)]
Factor = Annotated[float, Field(gt=0)]
PAIR = Field(min_length=2, max_length=2)


class DataOptions(BaseModel):
    """Where images come from and how they are cut.

    Attributes:
        dataset: `voc`, `ade20k`, `cityscapes`, `lip`, `coco-stuff-10k`, `coco-stuff-164k`, `pascal-context`, `isprs`,
            `coco-json`, `folder` or `digits`, see `contseg.data.open.DATASETS`.
        path: its folder (`digits` needs none).
        options: of the dataset's class; and `bands` and `range` of every dataset, see `contseg.data.pixels.Reading`.
        pipeline: `mib`, `ssul`, `ssseg` or `ssseg-lip`, see `contseg.data.pipelines.augment`.
        crop: side of the training crop in pixels, or [height, width].
        scale: [least, most] factor that images are scaled by; none: the pipeline's own (`mib` has no such factor).
        resize: [long, short] side in pixels that `ssseg` and `ssseg-lip` fit images into before they scale them; none:
            [2048, 512] and [520, 520].
        flip: probability of a horizontal flip.
        jitter: colour jitter, or none.
        test_crop: resize the shorter side to this and cut the centre at evaluation, for image and label (MiB, PLOP: 512);
            none evaluates whole images at their own size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dataset: str
    path: str | None = None
    options: dict[str, Any] = {}
    pipeline: Literal["mib", "ssul", "ssseg", "ssseg-lip"] = "mib"
    crop: int | list[int] = 512
    scale: Annotated[list[Factor], PAIR] | None = None
    resize: Annotated[list[Side], PAIR] | None = None
    flip: float = Field(0.5, ge=0, le=1)
    jitter: JitterOptions | None = None
    test_crop: int | None = Field(None, ge=8)

    @field_validator("crop", mode="plain")
    @classmethod
    def _is_a_side_or_two(cls, crop: Any) -> Any:
        given = crop if isinstance(crop, list) and len(crop) == 2 else [crop]
        if not all(type(side) is int and side >= 8 for side in given):
            raise ValueError(f"give whole pixels, 8 at least: a side, or [height, width] (got {crop!r})")
        return crop

    @field_validator("scale")
    @classmethod
    def _is_a_range(cls, scale: list[float] | None) -> list[float] | None:
        if scale and scale[0] > scale[1]:
            raise ValueError(f"give [least, most] (got {scale})")
        return scale


class Recipe(BaseModel):
    """A run.

    Attributes:
        name: of the run; names its folder, so it is not empty, `.` or `..`.
        note: for readers: sources, and the reasons for values.
        links: where it was published: `config`, `model`, `log`, `code` to an address.
        based_on: the packaged recipe that this one was made from, to report what was changed; set when a recipe is read.
        data, scenario, network, training: see there.
        evaluation: the inference with which a step is measured.
        method: `name` and hyper-parameters of a method.
        initial_weights: the weights that the publication starts from, in words; `backbone_weights` loads them.
        backbone_weights: ImageNet weights for step 0: a file, a folder with `model.safetensors`, `hub` (timm downloads them;
            not for a ResNet), or none.
        start_from: a trained segmenter that is used in place of step 0, which is then measured but not trained: a folder of
            `save_pretrained`, a segmenter.safetensors, a step's folder, or a run, whose last finished step is taken.
            `network` becomes the segmenter's, and a key of it that the user sets must agree. Or none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    note: str = ""
    links: dict[Literal["code", "config", "model", "log"], str] = {}
    based_on: str | None = None
    data: DataOptions
    scenario: ScenarioOptions = ScenarioOptions()
    network: NetworkOptions = NetworkOptions()
    method: dict[str, Any] = {"name": "finetune"}
    training: TrainingOptions = TrainingOptions()
    evaluation: InferenceOptions = InferenceOptions()
    initial_weights: str = ""
    backbone_weights: str | None = None
    start_from: str | None = None

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if name.replace("/", "-").strip(" .") == "":
            raise ValueError(f"{name!r} is no name for a folder; give a word, such as mine")
        return name
