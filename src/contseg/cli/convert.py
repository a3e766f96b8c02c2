"""`contseg convert`."""

from pathlib import Path

from contseg.cli.console import console
from contseg.cli.networks import network_of
from contseg.errors import ContsegError
from contseg.interop.convert import classes_of_outputs, convert_file, under
from contseg.interop.pretrained import file_sha256, is_pretrained, save_pretrained, source_of

SAME_NAMES = {"mib": " (the names of plop are the same)", "idec": " (the names of lag are the same)"}


def run_conversion(
    file: Path,
    source: str | None,
    classes: str,
    split: str | None,
    order: str,
    out: Path,
    changes: list[str],
    base: str | None = None,
) -> None:
    """Convert a published segmenter to a folder, and print what it is.

    Args:
        changes: KEY=VALUE, network options in addition to those inferred from the file.
        base: weights of the backbone, to which those in the file are differences.

    Raises:
        ContsegError: the file does not match the code base or the classes, or `out` contains other files or the
            segmenter of another file.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not is_pretrained(out)):
        raise ContsegError(f"{out}: is not empty and contains no segmenter; choose another folder with --out")
    segmenter, used = convert_file(file, source, base)
    digest = file_sha256(file)
    if is_pretrained(out) and source_of(out).get("sha256") != digest:
        raise ContsegError(f"{out}: contains a segmenter of another file; choose another folder with --out")
    if changes:
        segmenter = under(segmenter, network_of(segmenter.options.model_dump(), changes))
    options = segmenter.options
    table = classes_of_outputs(classes, sum(segmenter.widths) - options.unknown, split=split, order=order)
    save_pretrained(
        out,
        segmenter,
        table,
        {"code_base": used, "file": file.name, "sha256": digest, **({"base": Path(base).name} if base else {})},
    )
    idrnet = f" under IDRNet (refine: {options.idrnet.refine})" if options.idrnet else ""
    background = "background and " if table.has_background else ""
    console.print(
        f"read as: {used}{'' if source else SAME_NAMES.get(used, '')}\n"
        f"network: {options.backbone.name}, {options.head.name}{idrnet}, output stride {options.backbone.stride}\n"
        f"outputs: {', '.join(map(str, segmenter.widths))}{' (the first is unknown)' if options.unknown else ''}\n"
        f"classes: {background}{len(table.foreground)} of {classes}, the last is {table.names[-1]}\n"
        f"folder: {out}",
        soft_wrap=True,
        highlight=False,
    )
