"""Shows the examples of docstrings as code: an extension of griffe, which mkdocs.yml names."""

import re
from typing import Any

import griffe

# "Example:" or "Example, for a kernel:"; of griffe's own words, "Examples" alone means code.
_TITLE = re.compile(r"^Example(?:, (.+))?:$", re.MULTILINE)


class Examples(griffe.Extension):
    """Renames the sections `Example:` to `Examples:`."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _TITLE.sub(_renamed, obj.docstring.value)


def _renamed(match: re.Match[str]) -> str:
    title = match[1] or ""
    return f"Examples: {title[:1].upper()}{title[1:]}".rstrip()
