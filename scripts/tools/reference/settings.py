"""The tables of docs/configuration.md: all settings, and what is ignored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.config.configuration import Configuration
from pipeline.config.sections import IGNORED
from pipeline.config.setting import Setting, fields_of


def tables() -> dict[str, str]:
    return {"settings": "\n".join(_sections(Configuration, "")), "ignored": "\n".join(_ignored()) + "\n"}


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
