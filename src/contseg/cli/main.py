"""The command `contseg`. Subcommands import what they need when they run, so that `--help` is fast."""

import math
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from contseg import __version__
from contseg.cli.arguments import DataOption, OverridesArgument, with_data
from contseg.cli.before import app as before_app
from contseg.cli.data import app as data_app
from contseg.cli.failures import Interruptible, one_line_errors, require_no_empty
from contseg.cli.plugins import PluginOption, with_plugins
from contseg.cli.prepare import app as prepare_app
from contseg.cli.recipes import app as recipes_app
from contseg.cli.streams import warn_in_one_line, write_anything
from contseg.cli.sweep_command import app as sweep_app
from contseg.cli.trained import app as trained_app
from contseg.cli.tune_command import app as tune_app
from contseg.errors import ContsegError
from contseg.interruption import catching, end_with_input

app = typer.Typer(
    name="contseg",
    cls=Interruptible,
    help="Train segmentation networks on classes that arrive step by step, and measure forgetting.",
    epilog="Example: contseg demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(before_app)
app.add_typer(trained_app)
app.add_typer(sweep_app)
app.add_typer(tune_app)
app.add_typer(data_app, name="data")
app.add_typer(prepare_app, name="prepare")
app.add_typer(recipes_app, name="recipes")

ChangesOption = Annotated[
    bool, typer.Option("--accept-changes", help="Resume unfinished runs although data or code changed; marks them.")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Folder to write to.")]


ExportFormat = Literal["onnx", "torch", "hf"]


def print_version(wanted: bool) -> None:
    """Print the version and exit, if requested."""
    if wanted:
        print(f"contseg {__version__}")
        raise typer.Exit


@app.callback()
def contseg(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version and exit.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Train segmentation networks on classes that arrive step by step, and measure forgetting."""


@app.command(epilog="Example: contseg demo digits --methods finetune,mib,plop")
def demo(
    dataset: Annotated[str, typer.Argument(help="globe or digits.", metavar="[globe|digits]")] = "globe",
    overrides: OverridesArgument = None,
    methods: Annotated[str, typer.Option(help="Methods to compare, along with joint training.")] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again, in a new folder.")] = False,
    out: OutOption = None,
    accept_changes: ChangesOption = False,
) -> None:
    """Compare methods that learn the land cover of the Earth (or handwritten digits) step by step, and write a report."""
    from contseg.cli.demo import run_demo

    values = list(overrides or [])
    if "=" in dataset:  # `demo training.epochs=1` has no dataset
        values.insert(0, dataset)
        dataset = "globe"
    chosen = [name.strip() for name in methods.split(",") if name.strip()]
    run_demo(dataset, chosen, fresh, out, values, accept_changes)


@app.command(epilog="Example: contseg train digits/plop_5-1 training.epochs=5")
def train(
    recipe: Annotated[str | None, typer.Argument(help="A YAML file, or a packaged recipe.", metavar="[RECIPE]")] = None,
    overrides: OverridesArgument = None,
    data: DataOption = None,
    backbone_weights: Annotated[
        str | None,
        typer.Option(help="ImageNet weights for step 0: a file, or hub.", metavar="FILE"),
    ] = None,
    out: OutOption = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Resume the run in this folder.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite an existing run in the output folder.")] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Resume although recipe, data or code changed; marks the run.")
    ] = False,
    cache: Annotated[bool, typer.Option(help="Share step 0 with other runs through a cache.")] = True,
    log: Annotated[
        Literal["text", "json"], typer.Option(help="Progress as text, or as a JSON object per line for programs.")
    ] = "text",
    plugin: PluginOption = None,
) -> None:
    """Train a recipe step by step, print the results and write a report."""
    from contseg.cli.train import run_training

    values = list(overrides or [])
    if (
        recipe is not None and "=" in recipe and not Path(recipe).is_file()
    ):  # `train --resume RUN training.devices=2` has no recipe
        values.insert(0, recipe)
        recipe = None
    if backbone_weights is not None:
        values.append(f"backbone_weights={backbone_weights!r}")
    run_training(recipe, with_plugins(with_data(values, data), plugin), out, resume, overwrite, cache, accept_changes, log)


@app.command(epilog="Example: contseg predict runs/digits-plop_5-1 photos --out predictions")
def predict(
    segmenter: Annotated[Path, typer.Argument(help="Folder of a run or segmenter, or its file.", metavar="SEGMENTER")],
    images: Annotated[Path, typer.Argument(help="An image, or a folder of images.", metavar="IMAGES")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("predictions"),
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="png, geotiff, coco, labelme or cvat; default: geotiff for GeoTIFF, png for other images.",
            metavar="FORMAT",
        ),
    ] = None,
    panoptic: Annotated[
        bool, typer.Option("--panoptic", help="Objects one by one: ids and classes in COCO's panoptic format.")
    ] = False,
    slide: Annotated[
        int | None, typer.Option(min=1, max=65536, help="Predict in sliding windows of this side, in pixels.")
    ] = None,
    scales: Annotated[str | None, typer.Option(help="Average over these scales, e.g. 0.75,1,1.25.")] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Average with the mirrored image.")] = None,
    bands: Annotated[str | None, typer.Option(help="Bands used as red, green and blue, e.g. 4,3,2.")] = None,
    values: Annotated[
        str | None, typer.Option("--range", help="Values mapped to 0 and 255, e.g. 0,4095; default: as in the run.")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option("--max-pixels", help="Largest image that is read whole; default: 178956970.")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Segment images, frames of a video and GeoTIFF.

    Writes masks, GeoTIFF, or annotations for labelling tools.
    """
    from contseg.cli.predict import run_prediction
    from contseg.data.limits import set_max_pixels

    set_max_pixels(max_pixels, "--max-pixels")
    changes: dict[str, Any] = {} if slide is None else {"mode": "slide", "crop": slide, "stride": None}
    if scales is not None:
        changes["scales"] = numbers("--scales", scales)
    if flip is not None:
        changes["flip"] = flip
    chosen = None if bands is None else [whole(band) for band in numbers("--bands", bands)]
    bounds = None if values is None else numbers("--range", values)
    run_prediction(segmenter, images, out, changes, chosen, bounds, form, panoptic)


@app.command(epilog="Example: contseg convert plop.pth --classes voc --split 15-1 --out plop")
def convert(
    file: Annotated[Path, typer.Argument(help="A published checkpoint (.pth, .safetensors).", metavar="FILE")],
    classes: Annotated[str, typer.Option(help="A dataset, e.g. voc, or a list of names (.txt), background first.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write the segmenter to.")],
    source: Annotated[
        str | None,
        typer.Option("--from", help="csseg, mib, plop, sdr, idec, lag, ssul, ssseg or eomt; default: detected."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the training, e.g. 15-1.")] = None,
    order: Annotated[str, typer.Option(help="Order of the classes, as scenario.order.")] = "natural",
    base: Annotated[
        str | None,
        typer.Option(
            help="Weights of the backbone that the file only has differences to (delta weights of EoMT): FILE or hub."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            help="Network options that cannot be inferred from the file, e.g. backbone.output_stride=8.",
            metavar="[KEY=VALUE]...",
        ),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Convert a published checkpoint for predict, evaluate and start_from.

    The code base is detected from tensor names; no code in the file is executed.
    """
    from contseg.cli.convert import run_conversion

    run_conversion(file, source, classes, split, order, out, changes or [], base)


@app.command(epilog="Example: contseg export runs/plop --to onnx --out plop.onnx --argmax")
def export(
    model: Annotated[Path, typer.Argument(help="A run, a segmenter, or a model of another library.", metavar="MODEL")],
    out: Annotated[Path, typer.Option("--out", help="File to write; with --to hf a folder.")],
    to: Annotated[ExportFormat, typer.Option("--to", help="onnx, torch (.pt2), or hf (transformers).")] = "onnx",
    argmax: Annotated[bool, typer.Option("--argmax", help="Output class ids instead of scores.")] = False,
    tile: Annotated[
        int | None,
        typer.Option(min=1, max=65536, help="Fix height and width, in pixels (needed by QGIS); default: any size."),
    ] = None,
    resolution: Annotated[float | None, typer.Option(help="Resolution of the images for QGIS, in cm per pixel.")] = None,
    plugin: PluginOption = None,
) -> None:
    """Write a model for other programs: ONNX, PyTorch or transformers.

    The result is compared with PyTorch before it is written.
    """
    from contseg.cli.export import run_export

    run_export(model, to, out, argmax, tile, resolution)


@app.command(epilog="Example: contseg models resnet101 deeplabv3-mib backbone.output_stride=8")
def models(
    backbone: Annotated[
        str | None, typer.Argument(help="For example resnet101; default: list all.", metavar="[BACKBONE]")
    ] = None,
    head: Annotated[str, typer.Argument(help="For example fcn.", metavar="[HEAD]")] = "deeplabv3-mib",
    idrnet: Annotated[bool, typer.Option("--idrnet", help="Add IDRNet to the head.")] = False,
    classes: Annotated[int, typer.Option(min=1, max=65535, help="Number of classes.")] = 21,
    crop: Annotated[int, typer.Option(min=1, max=8192, help="Side of the image in pixels.")] = 512,
    changes: Annotated[
        list[str] | None,
        typer.Argument(help="Network options.", metavar="[KEY=VALUE]..."),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """List available networks, or print the parameter count and GFLOPs of one."""
    from contseg.cli.models import print_model, print_models
    from contseg.cli.networks import network_of

    if backbone is None:
        return print_models()
    values = list(changes or [])
    if "=" in head:  # `models resnet50 backbone.output_stride=8` has no head
        values.insert(0, head)
        head = "deeplabv3-mib"
    network: dict[str, Any] = {"backbone": backbone, "head": head} | ({"idrnet": {}} if idrnet else {})
    print_model(network_of(network, values), classes, crop)


@app.command(epilog="Example: contseg table runs/plop runs/mib --out table.md")
def table(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or of one sweep.", metavar="RUN...|SWEEP")],
    out: Annotated[Path | None, typer.Option("--out", help="Also write it to a file (.md, .csv; .tex of a sweep).")] = None,
    plugin: PluginOption = None,
) -> None:
    """Compare runs with published numbers of the same protocol, or the methods of a sweep with each other."""
    from contseg.cli.sweep import is_description

    if len(runs) == 1 and is_description(runs[0]):
        from contseg.cli.sweep_table import print_sweep_table

        print_sweep_table(runs[0], out)
        return
    from contseg.cli.table import print_table

    print_table(runs, out)


@app.command(epilog="Example: contseg report runs/plop runs/mib --out report.html")
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or of one sweep.", metavar="RUN...|SWEEP")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The report; default: report.html in the first run, sweep.html in a sweep."),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Write a report of one run, of several side by side, or of a sweep, as one HTML file."""
    from contseg.cli.console import console
    from contseg.cli.sweep import is_description
    from contseg.report.page import write_report

    if len(runs) == 1 and is_description(runs[0]):
        from contseg.sweeps.report import write_sweep_report

        console.print(f"report: {write_sweep_report(runs[0], out)}", soft_wrap=True, markup=False)
        return
    console.print(f"report: {write_report(runs, out or runs[0] / 'report.html')}", soft_wrap=True)


@app.command(epilog="Example: contseg doctor")
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the self-test.")] = False,
) -> None:
    """Check this machine: versions, devices, memory, cache and extras.

    The self-test trains a small network in less than 20 seconds.
    """
    from contseg.cli.doctor import run_doctor

    run_doctor(quick)


def numbers(option: str, text: str) -> list[float]:
    """Finite numbers from a text, separated by commas.

    Raises:
        ContsegError: they are not numbers, or not finite.

    Example:
        >>> numbers("--scales", "0.75, 1")
        [0.75, 1.0]
    """
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise ContsegError(f"{option}: expected numbers separated by commas, such as 0.75,1,1.25 (got '{text}')")
    return found


def whole(number: float) -> Any:
    """The number, as an integer if it is one, so that 1.5 is not read as band 1."""
    return int(number) if number.is_integer() else number


@cache
def command() -> Any:
    """The command with its subcommands. It is made once in a process: making it takes longer than reading a recipe."""
    return typer.main.get_command(app)


def main() -> None:
    """Entry point. An error of the input or of the system is printed as one line, with exit code 2."""
    write_anything()
    warn_in_one_line()
    with catching():
        end_with_input()
        with one_line_errors():
            require_no_empty(sys.argv[1:])
            code = command()(prog_name="contseg", standalone_mode=False)
            sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
