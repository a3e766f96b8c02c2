"""The typed recipe: the complete description of a run."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from contseg.engine.options import TrainingOptions
from contseg.errors import visible
from contseg.evaluation.options import InferenceOptions
from contseg.models.options import NetworkOptions
from contseg.options import Factor, Options, PathText, Share, Side
from contseg.scenarios.options import ScenarioOptions


class JitterOptions(Options):
    """Colour jitter, see `contseg.data.pipelines.augment.Jitter`."""

    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0


PAIR = Field(min_length=2, max_length=2)


class DataOptions(Options):
    """The dataset, and how samples are cut.

    Attributes:
        dataset: `voc`, `ade20k`, `ade20k-panoptic`, `coco-panoptic`, `cityscapes`, `lip`, `coco-stuff-10k`,
            `coco-stuff-164k`, `pascal-context`, `isprs`, `coco-json`, `labelme`, `folder`, `digits`, `globe` or that of a
            plugin, see `contseg.data.open.DATASETS`.
        path: folder of the dataset (not for `digits` and `globe`).
        options: options of the dataset, and `bands` and `range` for every dataset, see `contseg.data.pixels.Reading`.
        follow_links: whether links in the dataset that lead out of its folder are followed.
        max_pixels: the most pixels of an image; none: the variable `CONTSEG_MAX_PIXELS`, or 178 956 970.
        pipeline: `mib`, `ssul`, `ssseg`, `ssseg-lip`, `centre` or that of a plugin, see `contseg.data.pipelines.augment`.
        crop: side of the training crop in pixels, or [height, width].
        scale: [minimum, maximum] of the random scaling factor; none: that of the pipeline (`mib` has no such factor).
        resize: [long, short] side in pixels to which `ssseg`, `ssseg-lip` and `ssul` fit images before scaling; none:
            [2048, 512], [520, 520], and their own size.
        flip: probability of a horizontal flip.
        jitter: colour jitter, or none.
        test_crop: at evaluation, resize the shorter side of image and label to this and cut the centre (MiB, PLOP: 512);
            none evaluates whole images at their own size.
    """

    dataset: str
    path: PathText | None = None
    options: dict[str, Any] = Field({})
    follow_links: bool = False
    max_pixels: int | None = Field(None, ge=1)
    pipeline: str = "mib"
    crop: int | list[int] = 512
    scale: Annotated[list[Factor], PAIR] | None = None
    resize: Annotated[list[Side], PAIR] | None = None
    flip: Share = 0.5
    jitter: JitterOptions | None = None
    test_crop: Side | None = None

    @field_validator("crop", mode="plain")
    @classmethod
    def _is_a_side_or_two(cls, crop: Any) -> Any:
        given = crop if isinstance(crop, list) and len(crop) == 2 else [crop]
        if not all(type(side) is int and 8 <= side <= 65536 for side in given):
            raise ValueError(f"give whole pixels, 65536 at most and 8 at least: a side, or [height, width] (got {crop!r})")
        return crop

    @field_validator("scale")
    @classmethod
    def _is_a_range(cls, scale: list[float] | None) -> list[float] | None:
        if scale and scale[0] > scale[1]:
            raise ValueError(f"give [least, most] (got {scale})")
        return scale


class Recipe(Options):
    """A run: data, scenario, network, method, training and evaluation.

    Attributes:
        name: name of the run and of its folder, so not empty, `.` or `..`.
        note: sources and reasons for values, for readers.
        links: `config`, `model`, `log` or `code` of the publication to an address.
        plugins: modules and files (.py) to import first, for methods, datasets, backbones, heads and pipelines of your own.
            Those of parts, recipe and command line are combined. A file is relative to its recipe.
        based_on: the packaged recipe that this one is based on, to report changes; set when a recipe is read.
        data, scenario, network, training: see their classes.
        evaluation: inference options for the evaluation of a step.
        method: `name` and hyper-parameters of a method.
        initial_weights: the initial weights of the publication, in words; `backbone_weights` loads them.
        backbone_weights: ImageNet weights for step 0: a file, a folder with `model.safetensors`, `package` (of an installed
            package; efficientnet_lite0), `hub` (downloaded by timm; not for a ResNet), or none.
        start_from: a trained segmenter that is used in place of step 0, which is then evaluated but not trained: a folder of
            `save_pretrained`, a segmenter.safetensors, the folder of a step, or a run (its last finished step). The run
            gets the network of the segmenter, and keys of `network` that the user sets must agree with it. Or none.
    """

    name: str
    note: str = ""
    links: dict[Literal["code", "config", "model", "log"], str] = Field({})
    plugins: list[str] = Field([])
    based_on: str | None = None
    data: DataOptions
    scenario: ScenarioOptions = ScenarioOptions()
    network: NetworkOptions = NetworkOptions()
    method: dict[str, Any] = Field({"name": "finetune"})
    training: TrainingOptions = TrainingOptions()
    evaluation: InferenceOptions = InferenceOptions()
    initial_weights: str = ""
    backbone_weights: PathText | None = None
    start_from: PathText | None = None

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if name.replace("/", "-").strip(" .") == "":
            raise ValueError(f"{name!r} is not a valid folder name; use a word, such as mine")
        if visible(name) != name or "\n" in name:
            raise ValueError(f"{visible(name)!r} contains a control character or a line break; use a word, such as mine")
        return name
