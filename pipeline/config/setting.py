"""How a section declares its settings: once, for reading, for defaults and for the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from .kinds import Kind


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a section. ``derived`` describes where the value comes from if the default is None; "" if None is a
    value. ``live``: it can change while the server runs."""

    kind: Kind
    default: Any
    meaning: str
    derived: str = ""
    live: bool = False


@dataclass(frozen=True, slots=True)
class Ignored:
    """A key for llm-serving's internals: accepted, without effect here."""

    reason: str


def setting(kind: Kind, default: Any, meaning: str, *, derived: str = "", live: bool = False) -> Any:
    """A field of a section. With ``derived`` the default follows from other settings (`pipeline.config.derive`)."""
    return field(metadata={"setting": Setting(kind, default, meaning, derived, live)})


def section(kind: type) -> Any:
    """A field that is a section of its own."""
    return field(metadata={"section": kind})


def settings_of(kind: type, prefix: str) -> Iterator[tuple[str, Setting]]:
    """Dotted key and declaration of every setting, inner sections included, in the order of declaration."""
    for name, inner in fields_of(kind):
        key = f"{prefix}.{name}" if prefix else name
        if isinstance(inner, Setting):
            yield key, inner
        else:
            yield from settings_of(inner, key)


def fields_of(kind: type) -> Iterator[tuple[str, Setting | type]]:
    """Name and declaration of a section's own fields; a type for an inner section."""
    for item in fields(kind):
        if "setting" in item.metadata:
            yield item.name, item.metadata["setting"]
        elif "section" in item.metadata:
            yield item.name, item.metadata["section"]


def build(kind: type, values: dict[str, Any], prefix: str = "") -> Any:
    """An instance of the section from dotted keys."""
    arguments = {}
    for name, inner in fields_of(kind):
        key = f"{prefix}.{name}" if prefix else name
        arguments[name] = values[key] if isinstance(inner, Setting) else build(inner, values, key)
    return kind(**arguments)
