"""Arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[str, typer.Argument(help="A YAML file, or a packaged recipe.", metavar="RECIPE")]
OverridesArgument = Annotated[list[str] | None, typer.Argument(help="Changes to the recipe.", metavar="[KEY=VALUE]...")]
DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of the dataset; short for data.path=FOLDER.")]


def with_data(overrides: list[str], data: Path | None) -> list[str]:
    """The overrides, including the folder of the dataset."""
    return [*overrides, f"data.path={str(data)!r}"] if data else overrides
