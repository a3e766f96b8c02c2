"""The command `contseg`. PyTorch is imported by the commands that need it, so that help is quick."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from contseg import __version__
from contseg.cli.data import app as data_app
from contseg.cli.plugins import PluginOption, with_plugins
from contseg.cli.prepare import app as prepare_app
from contseg.cli.recipes import app as recipes_app
from contseg.cli.streams import write_anything
from contseg.errors import ContsegError, visible
from contseg.interruption import ENDS_WITH_INPUT, Interrupted, catching, end_with


class _Interruptible(TyperGroup):
    """Commands that a signal ends with one line and the exit code of shells, 130 for Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        """Invoke the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            interrupted = Interrupted(stop.number, stop.resume) if isinstance(stop, Interrupted) else Interrupted(2)
        # the one that was caught, and all that its frames hold, such as readers of images, has ended
        print(interrupted, file=sys.stderr)
        sys.exit(interrupted.exit_code)


app = typer.Typer(
    name="contseg",
    cls=_Interruptible,
    help="Continual semantic segmentation: learn new classes step by step, and measure what was forgotten.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
app.add_typer(prepare_app, name="prepare")
app.add_typer(recipes_app, name="recipes")

RecipeArgument = Annotated[
    str, typer.Argument(help="A recipe: a YAML file, or a name such as digits/plop_5-1.", metavar="RECIPE")
]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="Changes to the recipe, such as training.lr=0.01.", metavar="[KEY=VALUE]...")
]
DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of the dataset; the same as data.path=FOLDER.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Folder to write to.")]


def print_version(wanted: bool) -> None:
    """Print the version and end, if it is wanted."""
    if wanted:
        print(f"contseg {__version__}")
        raise typer.Exit


@app.callback()
def contseg(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Continual semantic segmentation: learn new classes step by step, and measure what was forgotten."""


@app.command()
def demo(
    methods: Annotated[str, typer.Option(help="Methods to compare, beside the joint upper bound.")] = "finetune,mib",
    fresh: Annotated[bool, typer.Option("--fresh", help="Train everything again in a new folder.")] = False,
    out: OutOption = None,
    overrides: OverridesArgument = None,
) -> None:
    """Learn ten handwritten digits in six steps, with and without forgetting, and write a report."""
    from contseg.cli.demo import run_demo

    run_demo([name.strip() for name in methods.split(",") if name.strip()], fresh, out, overrides or [])


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="A recipe: a YAML file, or a name.", metavar="[RECIPE]")] = None,
    overrides: OverridesArgument = None,
    data: DataOption = None,
    backbone_weights: Annotated[
        str | None,
        typer.Option(help="ImageNet weights for step 0: a file, or hub; the same as backbone_weights=FILE.", metavar="FILE"),
    ] = None,
    out: OutOption = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Continue the run in this folder.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run that is in the way.")] = False,
    cache: Annotated[bool, typer.Option(help="Share step 0 with other runs.")] = True,
    plugin: PluginOption = None,
) -> None:
    """Train a recipe, step by step; ends with the figures and a report."""
    from contseg.cli.train import run_training

    values = list(overrides or [])
    if (
        recipe is not None and "=" in recipe and not Path(recipe).is_file()
    ):  # `train --resume RUN training.devices=2` has no recipe
        values.insert(0, recipe)
        recipe = None
    if backbone_weights is not None:
        values.append(f"backbone_weights={backbone_weights!r}")
    run_training(recipe, with_plugins(with_data(values, data), plugin), out, resume, overwrite, cache)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or of a segmenter.", metavar="RUN")],
    step: Annotated[int | None, typer.Option(help="Which step's segmenter; default: the last.")] = None,
    data: DataOption = None,
    recipe: Annotated[str | None, typer.Option(help="For a segmenter's folder: whose test set and classes.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="How images are seen, such as evaluation.flip=true.", metavar="[evaluation.KEY=VALUE]..."),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Measure a segmenter on a test set, class by class: of a run again, or any other on the test set of a recipe."""
    from contseg.cli.evaluate import run_evaluation

    run_evaluation(run, step, data, overrides or [], recipe, plugin or [])


@app.command()
def predict(
    segmenter: Annotated[Path, typer.Argument(help="Folder of a run or a segmenter, or its file.", metavar="SEGMENTER")],
    images: Annotated[Path, typer.Argument(help="An image, or a folder of images.", metavar="IMAGES")],
    out: Annotated[Path, typer.Option("--out", help="Folder for ids/, colours/ and overlays/.")] = Path("predictions"),
    slide: Annotated[int | None, typer.Option(help="See images through a sliding window of this side, in pixels.")] = None,
    scales: Annotated[str | None, typer.Option(help="Average over these scales, such as 0.75,1,1.25.")] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Average with the mirrored image.")] = None,
    bands: Annotated[str | None, typer.Option(help="Bands that become red, green and blue, such as 4,3,2.")] = None,
    values: Annotated[
        str | None, typer.Option("--range", help="Values that become 0 and 255, such as 0,4095; default: those of the run.")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Segment images: id masks, colour masks and overlays. Images above 179 megapixels: set CONTSEG_MAX_PIXELS."""
    from contseg.cli.predict import run_prediction

    changes: dict[str, Any] = {} if slide is None else {"mode": "slide", "crop": slide, "stride": None}
    if scales is not None:
        changes["scales"] = numbers("--scales", scales)
    if flip is not None:
        changes["flip"] = flip
    chosen = None if bands is None else [int(band) for band in numbers("--bands", bands)]
    run_prediction(segmenter, images, out, changes, chosen, None if values is None else numbers("--range", values))


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A published checkpoint: .pth, .safetensors.", metavar="FILE")],
    classes: Annotated[str, typer.Option(help="A dataset (voc, ade20k ...), or a list of names (.txt), background first.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write the segmenter to.")],
    source: Annotated[
        str | None,
        typer.Option("--from", help="csseg, mib, plop, sdr, idec, lag, ssul or ssseg; default: told by its names."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="The split it was trained on, such as 15-1.")] = None,
    order: Annotated[str, typer.Option(help="The order of the classes, as scenario.order.")] = "natural",
    changes: Annotated[
        list[str] | None,
        typer.Argument(help="What the file does not tell, such as output_stride=8.", metavar="[KEY=VALUE]..."),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Turn a published segmenter into a folder for predict, evaluate and start_from. Nothing in the file is executed."""
    from contseg.cli.convert import run_conversion

    run_conversion(file, source, classes, split, order, out, changes or [])


@app.command()
def models(
    backbone: Annotated[str | None, typer.Argument(help="Such as resnet50.", metavar="[BACKBONE]")] = None,
    head: Annotated[str, typer.Argument(help="Such as fcn.", metavar="[HEAD]")] = "deeplabv3-mib",
    idrnet: Annotated[bool, typer.Option("--idrnet", help="With IDRNet over the head.")] = False,
    classes: Annotated[int, typer.Option(help="Outputs.")] = 21,
    crop: Annotated[int, typer.Option(help="Side of the image in pixels.")] = 512,
    changes: Annotated[
        list[str] | None,
        typer.Argument(help="Options of the network, such as output_stride=8.", metavar="[KEY=VALUE]..."),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """List networks; or print the parameters of one, and what an image costs."""
    from contseg.cli.models import print_model, print_models
    from contseg.cli.networks import network_of

    if backbone is None:
        return print_models()
    values = list(changes or [])
    if "=" in head:  # `models resnet50 output_stride=8` names no head
        values.insert(0, head)
        head = "deeplabv3-mib"
    network: dict[str, Any] = {"backbone": backbone, "head": head} | ({"idrnet": {}} if idrnet else {})
    print_model(network_of(network, values), classes, crop)


@app.command()
def plan(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    data: DataOption = None,
    pixels: Annotated[bool, typer.Option("--pixels", help="Also print pixels per class and step.")] = False,
    draw: Annotated[Path | None, typer.Option("--draw", help="Also draw it into this file (.png, .svg, .pdf).")] = None,
    plugin: PluginOption = None,
) -> None:
    """Print which images and classes each step of a recipe uses, and whether a published selection is matched."""
    from contseg.cli.plan import print_plan

    print_plan(recipe, with_plugins(with_data(list(overrides or []), data), plugin), pixels, draw)


@app.command("dry-run")
def dry_run(
    names: Annotated[str, typer.Argument(help="A recipe, a pattern such as 'voc/*', or all.", metavar="NAME|all")],
    overrides: OverridesArgument = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Recipes at a time; default: two of several.")] = None,
    full: Annotated[
        bool | None, typer.Option("--full/--quarter", help="At the true crop (default for one), or at a quarter.")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Try a recipe without its data: its true network, two updates and a test in steps 0 and 1, on images made for it."""
    from contseg.cli.dry_run import run_dry_run

    run_dry_run(names, with_plugins(list(overrides or []), plugin), processes=processes, full=full)


@app.command()
def table(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", metavar="RUN...")],
    out: Annotated[Path | None, typer.Option("--out", help="Also write it here (.md, .csv).")] = None,
    plugin: PluginOption = None,
) -> None:
    """Put finished runs beside what was published on the same protocol, with what differs."""
    from contseg.cli.table import print_table

    print_table(runs, out)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs; several are compared.", metavar="RUN...")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The page to write; default: report.html in the first run.")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Write the page of one run, or of several side by side, as one HTML file."""
    from contseg.cli.console import console
    from contseg.report.page import write_report

    console.print(f"report: {write_report(runs, out or runs[0] / 'report.html')}", soft_wrap=True)


def with_data(overrides: list[str], data: Path | None) -> list[str]:
    """The overrides, and the dataset's folder among them."""
    return [*overrides, f"data.path={str(data)!r}"] if data else overrides


def numbers(option: str, text: str) -> list[float]:
    """Numbers that are divided by commas.

    Raises:
        ContsegError: something else.

    Example:
        >>> numbers("--scales", "0.75, 1")
        [0.75, 1.0]
    """
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ContsegError(f"{option}: '{text}' is no list of numbers; write such as 0.75,1,1.25") from None


def main() -> None:
    """Entry point: mistakes in the input become one line and exit code 2."""
    write_anything()
    with catching():
        if os.environ.pop(ENDS_WITH_INPUT, ""):
            end_with(_input_ended)
        try:
            app()
        except ContsegError as error:
            line = visible(str(error)).replace("\n", "\\n")
            print(f"error: {line}", file=sys.stderr)
            sys.exit(2)


def _input_ended() -> None:
    """Wait until nobody can write to standard input any more."""
    while os.read(sys.stdin.fileno(), 1):  # not through a buffer, whose lock the end of the interpreter would wait for
        pass


if __name__ == "__main__":
    main()
