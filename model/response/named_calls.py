"""Calls whose name stands before their arguments: `name[ARGS]{…}`, `<function=name>…`."""

from __future__ import annotations

from model.response.format import Calls
from model.response.json_values import read_arguments
from model.response.output import CallOutput, NotACallError
from model.response.tape import Search, Steps, Tape, literal


def read_named(call: CallOutput, form: Calls, closes: Search, bounds: Search) -> Steps[None]:
    """Raises NotACallError at what is none."""
    name = yield from read_name(call, form)
    sign = yield from call.tape.skip_blanks()
    is_closed = (yield from call.tape.mark_here(closes)) is not None
    has_arguments = not is_closed and sign in ("{", '"')
    if not is_closed and not has_arguments:
        yield from expect(call.tape, ["null"])
    call.begin(name)
    if has_arguments:
        yield from read_arguments(call, bounds)
    call.end()


def read_name(call: CallOutput, form: Calls) -> Steps[str]:
    """A tool's, and what stands around it."""
    yield from expect(call.tape, form.name_begin.split())
    name = yield from read_tool(call)
    yield from _end_name(call.tape, form)
    return name


def read_tool(call: CallOutput) -> Steps[str]:
    """A tool's name, the longest one there. What begins as no tool's does is text at once."""
    yield from call.tape.skip_blanks()
    name, known = "", list(call.tools)
    while sign := (yield from call.tape.peek()):
        known = [tool for tool in known if tool.startswith(name + sign)]
        if not known:
            break
        name += call.tape.take(1)
    if name not in call.tools:
        raise NotACallError
    return name


def _end_name(tape: Tape, form: Calls) -> Steps[None]:
    sign = yield from tape.skip_blanks()
    literals = form.name_end.split()
    if form.name_skips and sign == "{":  # models leave it out
        return
    if form.name_skips:
        yield from skip_behind(tape, literals.pop(0))
    yield from expect(tape, literals)


def skip_behind(tape: Tape, text: str) -> Steps[None]:
    end, mark = literal(text), None
    while mark is None:
        passed, mark = yield from tape.until(end)
        if not passed and mark is None:
            raise NotACallError


def expect(tape: Tape, literals: list[str]) -> Steps[None]:
    """One after another, blanks between them."""
    for text in literals:
        yield from tape.skip_blanks()
        if (yield from tape.mark_here(literal(text))) is None:
            raise NotACallError
        tape.take(len(text))
