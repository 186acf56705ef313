"""Calls as JSON objects, one or several, or a list of them."""

from __future__ import annotations

from model.response.format import Calls
from model.response.json_values import read_arguments, read_text, read_value
from model.response.output import CallOutput, NotACallError, State
from model.response.raw_calls import is_raw, read_raw
from model.response.tape import Search, Steps

_OTHER_KEYS = frozenset({"id", "type", "tool_call_id", "index"})
_ARGUMENTS = ("arguments", "parameters")


def read_json(call: CallOutput, form: Calls, bounds: Search, *, bare: bool = False) -> Steps[None]:
    """Call after call. `bare`: no mark stands before them, so an object with other keys is text.

    Raises NotACallError at what is none.
    """
    tape = call.tape
    in_list = (yield from tape.skip_blanks()) == "["
    if in_list:
        tape.take(1)
    while True:
        yield from _read_object(call, form, bounds, bare=bare)
        if not (yield from _goes_on(call, form, in_list=in_list)):
            return


def _goes_on(call: CallOutput, form: Calls, *, in_list: bool) -> Steps[bool]:
    """Another object must follow."""
    sign = yield from call.tape.skip_blanks()
    if in_list and sign == "]":
        call.tape.take(1)
    between = "," if in_list else form.between.strip()
    if sign and sign == between:
        call.start()
        call.tape.take(1)
        return True
    if not in_list and sign == "{":
        call.start()
        return True
    return False


def _read_object(call: CallOutput, form: Calls, bounds: Search, *, bare: bool) -> Steps[None]:
    tape = call.tape
    sign = yield from tape.skip_blanks()
    if sign != "{":
        raise NotACallError
    tape.take(1)
    while (yield from tape.skip_blanks()) != "}":
        key = yield from read_text(tape)
        if (yield from tape.skip_blanks()) != ":":
            raise NotACallError
        tape.take(1)
        if is_raw(call, key):
            yield from read_raw(call, Search(() if bare else form.closes))
            call.end()
            return
        yield from _read_member(call, form, bounds, key, bare=bare)
        if (yield from tape.skip_blanks()) == ",":
            tape.take(1)
    tape.take(1)
    call.end()


def _read_member(call: CallOutput, form: Calls, bounds: Search, key: str, *, bare: bool) -> Steps[None]:
    if key == form.name_key and call.state is State.UNDECIDED:
        name = yield from read_text(call.tape)
        call.begin(name)
        if bare and name not in call.tools:
            raise NotACallError
    elif key in (form.arguments_key, *_ARGUMENTS) and not call.has_arguments:
        yield from read_arguments(call, bounds)
    elif bare and key not in _OTHER_KEYS and call.state is State.UNDECIDED:
        raise NotACallError
    else:
        yield from read_value(call.tape, bounds, _ignore)


def _ignore(_text: str) -> None:
    return None
