"""`contseg prepare`."""

from pathlib import Path
from typing import Annotated

import typer

from contseg.errors import ContsegError

app = typer.Typer(no_args_is_help=True)


@app.callback(epilog="Example: contseg prepare isprs --potsdam Potsdam --out isprs")
def prepare() -> None:
    """Convert official downloads to folders that training reads."""


@app.command(epilog="Example: contseg prepare isprs --potsdam Potsdam --out isprs")
def isprs(
    out: Annotated[Path, typer.Option("--out", help="Folder for images/ and annotations/.")],
    potsdam: Annotated[Path | None, typer.Option(help="Folder with top_potsdam_*_RGB.tif and *_label.tif.")] = None,
    vaihingen: Annotated[Path | None, typer.Option(help="Folder with top_mosaic_*_area*.tif and their labels.")] = None,
    patch: Annotated[int, typer.Option(min=1, max=65536, help="Height and width of the patches in pixels.")] = 600,
    skip_tile: Annotated[list[str] | None, typer.Option(help="Leave out a tile, e.g. 6_7 or area3; repeatable.")] = None,
    keep_faulty: Annotated[
        bool, typer.Option("--keep-faulty", help="Include tile 7_10 of Potsdam, wrongly annotated.")
    ] = False,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Skip tiles with missing files.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete earlier patches of the same city that prepared.json lists.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Tiles in parallel; default: all cores, at most 4.")
    ] = None,
) -> None:
    """Cut the tiles of Potsdam and Vaihingen into numbered patches.

    Repeat the command to resume it.
    """
    from contseg.cli.console import console, progress_bar
    from contseg.data.isprs.cut import cut_tiles
    from contseg.data.isprs.tiles import FAULTY, Domain, find_tiles, left_out, number_tiles, raster_tools

    raster_tools()
    folders: dict[Domain, Path | None] = {"potsdam": potsdam, "vaihingen": vaihingen}
    given: dict[Domain, Path] = {domain: folder for domain, folder in folders.items() if folder is not None}
    if not given:
        raise ContsegError("prepare isprs: nothing to cut; give --potsdam FOLDER, --vaihingen FOLDER or both")
    skip = left_out(list(given), skip_tile or [], keep_faulty)
    if potsdam is not None and FAULTY in skip and FAULTY not in (skip_tile or []):
        console.print(
            f"tile {FAULTY} is left out because its annotation is faulty; --keep-faulty includes it", soft_wrap=True
        )
    tiles = {domain: find_tiles(domain, folder) for domain, folder in given.items()}
    absent = [line for found in tiles.values() for tile in found if tile.name not in skip for line in tile.absent()]
    for line in absent:
        console.print(line, soft_wrap=True, highlight=False)
    if absent and not allow_missing:
        raise ContsegError(f"prepare isprs: {len(absent)} files are missing; --allow-missing cuts the complete tiles")
    numbered = {domain: number_tiles(domain, found, skip, patch) for domain, found in tiles.items()}
    errors = []
    for domain, chosen in numbered.items():
        try:
            with progress_bar(f"cutting {domain}") as progress:
                errors += cut_tiles(out, domain, chosen, patch, workers=workers, overwrite=overwrite, progress=progress)
        except KeyboardInterrupt:
            console.print("Repeat the command without --overwrite to resume.")
            raise
        patches = sum(len(one.windows(patch)) for one in chosen)
        console.print(f"{domain}: {patches} patches of {len(chosen)} tiles: {out}", soft_wrap=True, highlight=False)
    if len(errors) == 1:
        raise errors[0]
    for error in errors:
        console.print(str(error), soft_wrap=True, highlight=False, markup=False)
    if errors:
        raise ContsegError(f"prepare isprs: {len(errors)} tiles could not be cut, as listed above")
