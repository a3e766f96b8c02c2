"""Commands for a trained model: `extend`, `forget`, `merge`, `evaluate` and `explain`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from contseg.cli.plugins import PluginOption
from contseg.errors import ContsegError

app = typer.Typer()

ModelArgument = Annotated[Path, typer.Argument(help="A run, a segmenter, or a model of another library.", metavar="MODEL")]
NewOption = Annotated[Path, typer.Option("--out", help="Folder of the new model; must not exist.")]


@app.command(epilog="Example: contseg extend runs/street --data boats --out street-boat")
def extend(
    model: ModelArgument,
    data: Annotated[Path, typer.Option("--data", help="Labelled images; only the new classes need a label.")],
    out: NewOption,
    classes: Annotated[str | None, typer.Option(help="New classes to learn, e.g. boat,train; default: all.")] = None,
    method: Annotated[str, typer.Option(help="auto, gaussian (all Gaussian heads) or another method.")] = "auto",
    keep: Annotated[Path | None, typer.Option(help="Old images, labelled or not, to measure the old classes.")] = None,
    unlabelled: Annotated[
        Literal["unknown", "background"],
        typer.Option(help="Meaning of pixels without a label: unknown may be an old class."),
    ] = "unknown",
    minutes: Annotated[float, typer.Option(min=0.0, max=1e6, help="Time limit of all gradient methods.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the held-out images and of the training.")] = 0,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="How --data and --keep are read, e.g. data.follow_links=true.", metavar="[data.KEY=VALUE]..."),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Add classes to a trained model, without its training images.

    Measures what it learned, kept and lost. The model itself is not changed.
    """
    from contseg.cli.extend import run_extension
    from contseg.cli.folder_options import folder_options

    wanted = listed("--classes", classes)
    run_extension(model, data, out, wanted, method, keep, unlabelled, minutes, seed, folder_options(overrides or []))


@app.command(epilog="Example: contseg forget street-boat --class boat --out street")
def forget(
    model: ModelArgument,
    names: Annotated[list[str], typer.Option("--class", help="Class to remove; repeatable.")],
    out: NewOption,
    plugin: PluginOption = None,
) -> None:
    """Remove classes from a model; exact for the method gaussian."""
    from contseg.cli.extend import run_forgetting

    run_forgetting(model, names, out)


@app.command(epilog="Example: contseg merge street-boat street-train --out street-both")
def merge(
    one: Annotated[Path, typer.Argument(help="An extended model.", metavar="A")],
    other: Annotated[Path, typer.Argument(help="Another extension of the same model.", metavar="B")],
    out: NewOption,
    plugin: PluginOption = None,
) -> None:
    """Merge two extensions of the same model by the method gaussian."""
    from contseg.cli.extend import run_merge

    run_merge(one, other, out)


@app.command(epilog="Example: contseg evaluate street-boat --data photos --json result.json")
def evaluate(
    model: ModelArgument,
    step: Annotated[int | None, typer.Option(min=0, help="Step of a run; default: the last.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Labelled images in any format; default: the test set of the run.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the result to a JSON file.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe with the test set, for a segmenter without a run.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="evaluation.KEY, or how --data is read: data.KEY.", metavar="[KEY=VALUE]..."),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Evaluate a model on labelled images, and print the IoU of each class.

    With --data, classes are matched by name. A run without it is evaluated on the test set of its step.
    """
    from contseg.cli.evaluate import run_evaluation

    run_evaluation(model, step, data, overrides or [], recipe, plugin or [], json)


@app.command(epilog="Example: contseg explain runs/plop --class star --step 1")
def explain(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")],
    name: Annotated[str, typer.Option("--class", help="The class in question.")],
    step: Annotated[int | None, typer.Option(min=0, help="Before and after this step; default: the last.")] = None,
    images: Annotated[int, typer.Option(min=1, max=100_000, help="Test images whose regions are compared.")] = 100,
    projection: Annotated[
        Literal["pca", "tsne"], typer.Option(help="Draw regions by principal components, or by t-SNE (scikit-learn).")
    ] = "pca",
    data: Annotated[Path | None, typer.Option("--data", help="Where the dataset of the run is now.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The page; default: explain.html in the run.")] = None,
    plugin: PluginOption = None,
) -> None:
    """Write a page on why a run predicts a class, before and after a step.

    Shows activation maps, features of regions, and similar classes.
    """
    from contseg.cli.explain import run_explanation

    run_explanation(run, name, step, images, projection, data, out, plugin or [])


def listed(option: str, text: str | None) -> list[str] | None:
    """Names from a text, separated by commas.

    Raises:
        ContsegError: there are none.

    Example:
        >>> listed("--classes", "boat, train"), listed("--classes", None)
        (['boat', 'train'], None)
    """
    names = None if text is None else [name.strip() for name in text.split(",") if name.strip()]
    if names == []:
        raise ContsegError(f"{option}: expected names separated by commas, such as boat,train (got '{text}')")
    return names
