"""The methods that an extension tries."""

from dataclasses import dataclass
from typing import Any

from contseg.extension.measure import Comparison
from contseg.models.segmenter import Segmenter
