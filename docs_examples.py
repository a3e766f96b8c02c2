"""Extension of griffe for the site: a docstring's `Example:` is code that runs, rendered as code (griffe knows `Examples:`)."""

from typing import Any

import griffe


class Examples(griffe.Extension):
    """Read the section `Example:` as griffe's `Examples:`."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
