"""Calls as a list of calls in Python, `[f(a=1), g(b="x")]`: a parser of literals; nothing is evaluated."""

from __future__ import annotations

import re

from model.response.json_values import dumped, read_string
from model.response.named_calls import read_tool
from model.response.output import CallOutput, NotACallError
from model.response.tape import Steps, Tape

_OUTSIDE = re.compile(r"[^\"'()\[\]{}]*")
_BLANKS = re.compile(r"\s*")
_KEYWORD = re.compile(r"([^\W\d]\w*)\s*=\s*")
_NUMBER = re.compile(r"([+-]?)(\d+(?:_\d+)*(?:\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_WORD = re.compile(r"[A-Za-z]+")
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_HEX = "[0-9a-fA-F]"
_CODE = f"x({_HEX}{{2}})|u({_HEX}{{4}})|U(000{_HEX}{{5}}|0010{_HEX}{{4}})"
_ESCAPE = re.compile(rf"\\(?:{_CODE}|(.))", re.DOTALL)
_SIGNS = dict(zip("ntrbfav0\n\\'\"", [*"\n\t\r\b\f\a\v\0", "", *"\\'\""], strict=True))
_DEEPEST = 64


def read_pythonic(call: CallOutput) -> Steps[None]:
    """Call after call, each given out as a whole. Raises NotACallError at what is none."""
    tape = call.tape
    yield from _take_sign(tape, "[")
    while True:
        name = yield from read_tool(call)
        yield from _take_sign(tape, "(")
        arguments = _Literals((yield from _read_body(tape))).keywords()
        call.begin(name)
        call.has_arguments = True
        call.add_arguments(arguments)
        call.end()
        if (yield from tape.skip_blanks()) != ",":
            break
        call.start()
        tape.take(1)
    if (yield from tape.peek()) == "]":
        tape.take(1)


def _take_sign(tape: Tape, sign: str) -> Steps[None]:
    if (yield from tape.skip_blanks()) != sign:
        raise NotACallError
    tape.take(1)


def _read_body(tape: Tape) -> Steps[str]:
    """What stands before the parenthesis that closes the call."""
    parts: list[str] = []
    depth = 1
    while True:
        parts.append((yield from tape.run(_OUTSIDE)))
        sign = yield from tape.peek()
        if not sign:
            raise NotACallError
        if sign in ('"', "'"):
            yield from read_string(tape, parts.append, sign)
            continue
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0:
            tape.take(1)
            return "".join(parts)
        parts.append(tape.take(1))


class _Literals:
    """Python's literals as JSON. Raises NotACallError at anything else, and where they are nested too deeply."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0

    def keywords(self) -> str:
        members = []
        while not self._at_end():
            found = self._match(_KEYWORD)
            members.append(f"{dumped(found[1])}: {self._value()}")
            if not self._take(",") and not self._at_end():
                raise NotACallError
        return "{" + ", ".join(members) + "}"

    def _at_end(self) -> bool:
        self._match(_BLANKS)
        return self._at == len(self._text)

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise NotACallError
        self._at = found.end()
        return found

    def _take(self, sign: str) -> bool:
        self._match(_BLANKS)
        is_here = self._text.startswith(sign, self._at)
        self._at += len(sign) if is_here else 0
        return is_here

    def _value(self) -> str:
        self._match(_BLANKS)
        sign = self._text[self._at : self._at + 1]
        if sign in ("'", '"'):
            return dumped(self._string(sign))
        if sign in ("[", "(", "{"):
            return self._nested(sign)
        if sign.isalpha():
            return _WORDS.get(self._match(_WORD)[0]) or self._refuse()
        return self._number()

    def _nested(self, sign: str) -> str:
        self._at, self._depth = self._at + 1, self._depth + 1
        if self._depth > _DEEPEST:
            raise NotACallError
        end = {"[": "]", "(": ")", "{": "}"}[sign]
        items = []
        while not self._take(end):
            items.append(self._member() if sign == "{" else self._value())
            if not self._take(","):
                if not self._take(end):
                    raise NotACallError
                break
        self._depth -= 1
        return f"{{{', '.join(items)}}}" if sign == "{" else f"[{', '.join(items)}]"

    def _member(self) -> str:
        self._match(_BLANKS)
        sign = self._text[self._at : self._at + 1]
        key = self._string(sign) if sign in ("'", '"') else self._refuse()
        if not self._take(":"):
            raise NotACallError
        return f"{dumped(key)}: {self._value()}"

    def _string(self, quote: str) -> str:
        self._at += 1
        start = self._at
        while (sign := self._text[self._at : self._at + 1]) != quote:
            if not sign:
                raise NotACallError
            self._at += 2 if sign == "\\" else 1
        self._at += 1
        return _ESCAPE.sub(_unescaped, self._text[start : self._at - 1])

    def _number(self) -> str:
        found = self._match(_NUMBER)
        whole, dot, fraction = found[2].replace("_", "").partition(".")
        whole = whole.lstrip("0") or "0"
        sign = "-" if found[1] == "-" else ""
        return f"{sign}{whole}{'.' + (fraction or '0') if dot else ''}{found[3] or ''}"

    def _refuse(self) -> str:
        raise NotACallError


def _unescaped(found: re.Match[str]) -> str:
    digits = found[1] or found[2] or found[3]
    return chr(int(digits, 16)) if digits else _SIGNS.get(found[4], found[0])
