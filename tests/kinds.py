"""Methods by what they learn with."""

from contseg.methods.registry import METHODS

PIXELS = [name for name, kind in METHODS.items() if "pixels" in kind.learns]
"""Those for networks that classify pixels."""
MASKS = [name for name, kind in METHODS.items() if "masks" in kind.learns]
"""Those for networks that classify masks."""
