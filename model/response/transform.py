"""Where a response template's `transform` takes a call's name and arguments from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from model.errors import TokenizerError

_PLACEHOLDER = re.compile(r"\{(content\.)?(\w+)\}")
_IGNORED = frozenset({"type", "id", "index"})  # the server's own


def call_keys(where: str, field: Mapping[str, Any], capture: str | None) -> tuple[str, str]:
    """The keys of name and arguments in a call's JSON. `capture`: the pattern's group, which then must be the name,
    and the content the arguments.

    Raises TokenizerError for a transform that makes something else than a call of it.
    """
    transform = field.get("transform")
    function = transform.get("function", transform) if isinstance(transform, Mapping) else transform
    each = field.get("transform_each", False)
    if function == "{content}" and capture is None and not each:
        return "name", "arguments"
    if isinstance(function, Mapping) and set(function) - _IGNORED == {"name", "arguments"}:
        name, arguments = (_placeholder(function[key]) for key in ("name", "arguments"))
        if capture is not None and (name, arguments) == ((False, capture), (False, "content")):
            return "name", "arguments"
        if capture is None and name and arguments and name[0] == arguments[0] == (not each):
            return name[1], arguments[1]
    raise TokenizerError(
        f"response_template: {where} is {transform!r}, in which the name and the arguments of a call can't be found; "
        'expected {"type": "function", "function": {"name": "{…}", "arguments": "{…}"}}'
    )


def _placeholder(value: Any) -> tuple[bool, str] | None:
    """Whether it is within the content, and its name."""
    found = _PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
    return (found[1] is not None, found[2]) if found else None
