"""Tables of all settings for docs/configuration.md: ``python -m pipeline.config.reference docs/configuration.md``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .configuration import Configuration
from .sections import IGNORED
from .setting import Setting, fields_of

_PART = re.compile(r"(<!-- (\w+): begin[^>]*-->\n).*?(<!-- \2: end -->)", re.DOTALL)


def tables() -> dict[str, str]:
    """Markdown by the name of the part of the page: ``settings`` and ``ignored``."""
    return {"settings": "\n".join(_sections(Configuration, "")), "ignored": "\n".join(_ignored()) + "\n"}


def refresh(page: str) -> str:
    """The page with its generated parts as they should be."""
    parts = tables()
    return _PART.sub(lambda part: f"{part[1]}{parts[part[2]]}{part[3]}", page)


def _sections(kind: type, prefix: str) -> Iterator[str]:
    own = dict(fields_of(kind))
    settings = {name: inner for name, inner in own.items() if isinstance(inner, Setting)}
    if settings:
        yield f"### `{prefix}`\n\n{' '.join((kind.__doc__ or '').split())}\n"
        yield "| key | default | value | meaning |\n|---|---|---|---|"
        yield "\n".join(_row(name, setting) for name, setting in settings.items()) + "\n"
    for name, inner in own.items():
        if not isinstance(inner, Setting):
            yield from _sections(inner, f"{prefix}.{name}" if prefix else name)


def _row(name: str, setting: Setting) -> str:
    default = setting.derived or f"`{_shown(setting.default)}`"
    return f"| `{name}`{' ↻' if setting.live else ''} | {default} | {setting.kind.expected} | {setting.meaning} |"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def _ignored() -> Iterator[str]:
    yield "| key | what it did in llm-serving |\n|---|---|"
    for key, ignored in IGNORED.items():
        yield f"| `{key}` | {ignored.reason} |"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        target = Path(argument)
        target.write_text(refresh(target.read_text(encoding="utf-8")), encoding="utf-8")
