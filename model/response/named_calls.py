"""Calls whose name stands before their arguments: `name[ARGS]{…}`, `<function=name>…`."""

from __future__ import annotations

import re

from model.response.format import Calls
from model.response.json_values import read_arguments
from model.response.output import CallOutput, NotACallError
from model.response.tape import Search, Steps, Tape, literal

_NAME = re.compile(r"[\w.\-]*")
_BEGINS = ("{", '"', "n")  # an object, one within a string, null


def read_named(call: CallOutput, form: Calls, closes: Search) -> Steps[None]:
    """Raises NotACallError at what is none."""
    name = yield from read_name(call, form)
    sign = yield from call.tape.skip_blanks()
    is_closed = (yield from call.tape.mark_here(closes)) is not None
    if not is_closed and sign not in _BEGINS:
        raise NotACallError
    call.begin(name)
    if not is_closed:
        yield from read_arguments(call, closes)
    call.end()


def read_name(call: CallOutput, form: Calls) -> Steps[str]:
    """A tool's, and what stands around it. One that begins as no tool's does is text at once."""
    tape = call.tape
    yield from tape.skip_blanks()
    if form.name_begin.strip():
        yield from _expect(tape, form.name_begin.strip())
    name = ""
    while any(tool.startswith(name) for tool in call.tools) and (part := (yield from tape.run(_NAME))):
        name += part
    if name not in call.tools:
        raise NotACallError
    yield from _end_name(tape, form)
    return name


def _end_name(tape: Tape, form: Calls) -> Steps[None]:
    sign = yield from tape.skip_blanks()
    if not form.name_skips:
        return (yield from _expect(tape, form.name_end.strip()))
    end, mark = literal(form.name_end.strip()), None
    while sign != "{" and mark is None:
        text, mark = yield from tape.until(end)
        if not text and mark is None:
            raise NotACallError
    return None


def _expect(tape: Tape, text: str) -> Steps[None]:
    if (yield from tape.mark_here(literal(text))) is None:
        raise NotACallError
    tape.take(len(text))
