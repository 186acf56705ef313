"""JSON as it is generated: found where it ends, passed on as it is written, never completed or corrected."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from model.response.output import CallOutput, NotACallError
from model.response.tape import Search, Steps, Tape

Sink = Callable[[str], object]

_IN_STRING = {quote: re.compile(rf"[^{quote}\\]*") for quote in "'\""}
_SCALAR = re.compile(r"[\w.+\-]*")


def read_string(tape: Tape, sink: Sink, quote: str = '"') -> Steps[None]:
    """With its quotes and escapes. Raises NotACallError where the answer ends inside."""
    sink(tape.take(1))
    while True:
        sink((yield from tape.run(_IN_STRING[quote])))
        sign = yield from tape.peek()
        if sign == "\\":
            sink(tape.take(1))
            yield from tape.peek()
        sink(tape.take(1))
        if sign == quote:
            return
        if not sign:
            raise NotACallError


def read_value(tape: Tape, bounds: Search, sink: Sink) -> Steps[None]:
    """Raises NotACallError where the answer ends inside, and where a mark stands outside of strings."""
    sign = yield from tape.skip_blanks()
    if sign == '"':
        yield from read_string(tape, sink)
    elif sign and sign in "{[":
        yield from _read_nested(tape, bounds, sink)
    else:
        yield from _read_scalar(tape, sink)


def _read_nested(tape: Tape, bounds: Search, sink: Sink) -> Steps[None]:
    others = _others(bounds)
    depth = 0
    while True:
        sink((yield from tape.run(others)))
        sign = yield from tape.peek()
        if not sign or (sign in bounds.firsts and (yield from tape.mark_here(bounds)) is not None):
            raise NotACallError
        if sign == '"':
            yield from read_string(tape, sink)
            continue
        depth += (sign in "{[") - (sign in "}]")
        sink(tape.take(1))
        if depth == 0 and sign in "}]":
            return


def _others(bounds: Search) -> re.Pattern[str]:
    """What neither opens nor closes anything."""
    return re.compile(f'[^{re.escape("".join(sorted(bounds.firsts)))}\\[\\]{{}}"]*')


def _read_scalar(tape: Tape, sink: Sink) -> Steps[None]:
    taken = 0
    while part := (yield from tape.run(_SCALAR)):
        taken += len(part)
        sink(part)
    if not taken or not (yield from tape.peek()):
        raise NotACallError


def read_text(tape: Tape) -> Steps[str]:
    """A string, decoded."""
    if (yield from tape.skip_blanks()) != '"':
        raise NotACallError
    parts: list[str] = []
    yield from read_string(tape, parts.append)
    value = parsed("".join(parts))
    if not isinstance(value, str):
        raise NotACallError
    return value


def read_arguments(call: CallOutput, bounds: Search) -> Steps[None]:
    """Passed on as they are written, but for none at all, and for those that are JSON within a string."""
    sign = yield from call.tape.skip_blanks()
    if sign and sign in "{[":
        yield from read_value(call.tape, bounds, call.add_arguments)
        call.has_arguments = True
        return
    parts: list[str] = []
    yield from read_value(call.tape, bounds, parts.append)
    if text := _arguments("".join(parts)):
        call.add_arguments(text)
        call.has_arguments = True


def _arguments(written: str) -> str:
    """Empty for none."""
    if written == "null":
        return ""
    inner = parsed(written)
    if inner is None:
        raise NotACallError
    if not isinstance(inner, str):
        return written
    if inner.strip() in ("", "null"):
        return ""
    return inner if isinstance(parsed(inner), dict) and is_utf8(inner) else written


def parsed(text: str) -> Any:
    """None for what is not JSON, too."""
    try:
        return json.loads(text, strict=False, parse_constant=_refuse, parse_int=float)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def is_utf8(text: str) -> bool:
    """It has no lone surrogate, which no client could be sent."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def dumped(text: str) -> str:
    """A string as JSON."""
    return json.dumps(text, ensure_ascii=not is_utf8(text))
