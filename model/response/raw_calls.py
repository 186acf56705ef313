"""Calls of tools that take a text, where a grammar makes the model write it as it is.

{"name": "patch", "input":
any text
}
"""

from __future__ import annotations

import json
import re
from typing import Final

from model.response.format import RAW
from model.response.output import CallOutput, NotACallError
from model.response.tape import Search, Steps

INPUT: Final = "input"
_END: Final = re.compile(r"\n\}\s*\Z")
_MAY_END: Final = re.compile(r"(?:\n(?:\}\s*)?)?\Z")


def is_raw(call: CallOutput, key: str) -> bool:
    """The text of the call that was begun follows."""
    return key == INPUT and call.name is not None and call.tools.get(call.name) == RAW


def read_raw(call: CallOutput, closes: Search) -> Steps[None]:
    """Up to the bracket before the closing mark, as the argument `input`. Raises NotACallError where none comes."""
    tape, kept = call.tape, ""
    if (yield from tape.peek()) != "\n":
        raise NotACallError
    tape.take(1)
    call.add_arguments(f'{{"{INPUT}": "')
    while True:
        text, mark = yield from tape.until(closes)
        kept += text
        if mark is not None or not text:
            break
        ready = _MAY_END.search(kept).start()  # type: ignore[union-attr]  # it matches the end, too
        call.add_arguments(_escaped(kept[:ready]))
        kept = kept[ready:]
    if mark is not None:
        tape.put_back(len(mark.text))
    whole = _END.search(kept)
    call.add_arguments(_escaped(kept if whole is None else kept[: whole.start()]))
    if whole is None:
        raise NotACallError
    call.add_arguments('"}')
    call.has_arguments = True


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
