"""Which format a user's folder has."""

from pathlib import Path

from contseg.data.datasets.coco_json import CocoJSON
from contseg.data.datasets.folder import Folder
from contseg.data.datasets.labelme import Labelme
from contseg.data.listing import files_below
from contseg.data.lists import require_file

_COCO_NAMES = ("instances_", "_annotations.coco")


def format_of(path: Path) -> type[Folder | CocoJSON | Labelme]:
    """The dataset class that reads a folder; `Folder` if it has none of the other formats."""
    if any((path / folder).is_dir() for folder in ("masks", "SegmentationClass")):
        return Folder
    jsons = [one for one in files_below(path) if one.suffix.lower() == ".json"] if path.is_dir() else []
    if any(one.name.startswith(_COCO_NAMES) for one in jsons):
        return CocoJSON
    for one in jsons:
        require_file(one)
        text = one.read_text(encoding="utf-8", errors="replace")
        if '"annotations"' in text and '"categories"' in text:
            return CocoJSON
        if '"shapes"' in text:
            return Labelme
    return Folder
