"""Extension of griffe for the site: `Example:` in a docstring is rendered as code, like griffe's own `Examples:`."""

from typing import Any

import griffe


class Examples(griffe.Extension):
    """Read the section `Example:` as griffe's `Examples:`."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
