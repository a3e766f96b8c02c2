"""The option `--plugin` of every command that uses a method, dataset, backbone, head, pipeline or converter."""

from typing import Annotated

import typer


def _load(plugins: list[str] | None) -> list[str]:
    if plugins:
        from contseg.plugins import load_plugins

        load_plugins(plugins)
    return plugins or []


PluginOption = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        callback=_load,
        help="Import a module or file with parts of your own; repeatable.",
        metavar="MODULE|FILE.py",
    ),
]


def with_plugins(overrides: list[str], plugins: list[str] | None) -> list[str]:
    """The overrides of a recipe, including its plugins.

    Example:
        >>> with_plugins(["training.lr=0.1"], ["careful.py"])
        ['training.lr=0.1', "plugins=['careful.py']"]
    """
    return [*overrides, f"plugins={plugins}"] if plugins else overrides
