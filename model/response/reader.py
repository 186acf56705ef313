"""Reads an answer as it is generated: reasoning, text and calls come out as they come in, wherever it is cut."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from model.response.format import Calls, Kind, Mark, Opened, Piece, Reasoning, ResponseFormat, Syntax
from model.response.json_calls import read_json
from model.response.named_calls import read_named
from model.response.output import CallOutput, NotACallError, Pieces, Prose, State
from model.response.pythonic import read_pythonic
from model.response.tape import Search, Steps, Tape
from model.response.xml_calls import read_xml

_BEGINS = {
    Syntax.JSON: "{[",
    Syntax.JSON_LIST: "{[",
    Syntax.PYTHONIC: "[",
}  # of those that say it by their first sign


class ResponseReader:
    """One answer's. Its time and memory are linear in the answer's length.

    ``tools``: names of those that may be called; a mapping's values are the JSON schemas of their arguments, or None.
    Without any the marks of calls are text. ``opened``: what the prompt left open.
    """

    def __init__(
        self,
        format: ResponseFormat,
        *,
        tools: Collection[str],
        opened: Opened = Opened.NOTHING,
    ) -> None:
        self._format = format
        self._reasoning = format.reasoning
        self._forms = format.calls if tools else ()
        read: list[Calls | Reasoning] = [*self._forms, *([self._reasoning] if self._reasoning else [])]
        opens = [mark for part in read for mark in part.opens]
        self._unread = self._marks_not_read(opens)
        self._ends = [mark for mark in format.ends if mark not in opens]
        self._search = Search([*opens, *format.text_opens, *format.ends, *self._unread])
        self._tape = Tape([*self._search.marks, *(mark for part in read for mark in part.closes)])
        self._pieces = Pieces()
        outside = bool(format.text_opens)
        self._text = Prose(
            lambda text: self._pieces.add(Kind.TEXT, text),
            shown=not outside or opened is Opened.TEXT,
            strips=outside,
        )
        named = tools if isinstance(tools, Mapping) else dict.fromkeys(tools)
        self._call = CallOutput(self._tape, named, self._pieces, self._text)
        self._may_be_bare = any(form.bare for form in self._forms) and opened is not Opened.TEXT
        self._machine = self._run(opened)

    def _marks_not_read(self, opens: list[Mark]) -> list[Mark]:
        """Of calls that are text here, in a format that drops what is outside of all marks."""
        marks = [mark for form in self._format.calls for mark in form.opens]
        return [mark for mark in marks if mark not in opens] if self._format.text_opens else []

    def push(self, text: str, token_id: int) -> list[Piece]:
        """The text that a token completed, which may be empty or that of several tokens, and the token's id."""
        self._tape.push(text, token_id)
        next(self._machine, None)
        return self._pieces.collect()

    def finish(self, *, cut: bool = False) -> list[Piece]:
        """What was held back. ``cut``: the model would have gone on; a call of which only the beginning is there, not
        its name, is left out then."""
        self._tape.ended, self._call.cut = True, cut
        for _ in self._machine:
            pass
        return self._pieces.collect()

    def _run(self, opened: Opened) -> Steps[None]:
        if opened is Opened.REASONING and self._reasoning is not None:
            yield from self._read_reasoning()
        while (mark := (yield from self._read_text())) is not None:
            if self._reasoning is not None and mark in self._reasoning.opens:
                yield from self._read_reasoning()
            else:
                yield from self._read_calls(mark)
        self._text.end()

    def _read_text(self) -> Steps[Mark | None]:
        """Up to the mark of another part, which it returns; None at the end."""
        while True:
            if self._may_be_bare:
                yield from self._read_bare()
            text, mark = yield from self._tape.until(self._search)
            self._text.push(text)
            if mark is None and not text:
                return None
            if mark is not None and not self._is_of_text(mark):
                return mark

    def _is_of_text(self, mark: Mark) -> bool:
        if mark in self._format.text_opens:
            self._text.shown = True
            self._text.drop_blanks()
        elif mark in self._ends:
            self._text.end()
            self._text.shown = False
        elif mark in self._unread:
            self._text.shown = True
            self._text.push(mark.text)
        else:
            return False
        return True

    def _read_reasoning(self) -> Steps[None]:
        assert self._reasoning is not None
        ends = [mark for mark in self._format.ends if mark.token_id is not None]  # of an answer that closed nothing
        search = Search([*self._reasoning.closes, *ends])
        self._text.drop_blanks()
        prose = Prose(lambda text: self._pieces.add(Kind.REASONING, text), strips=True)
        while True:
            text, mark = yield from self._tape.until(search)
            prose.push(text)
            if mark is not None or not text:
                return

    def _read_bare(self) -> Steps[None]:
        """Calls without a mark, if the text begins with them."""
        tape, forms = self._tape, [form for form in self._forms if form.bare]
        blanks: list[str] = []
        tape.tap = blanks.append
        sign = yield from tape.skip_blanks()
        tape.tap = None
        self._text.push("".join(blanks))
        if not sign or (yield from tape.mark_here(self._search)) is not None:
            return
        self._may_be_bare = False
        for form in forms:
            if sign in _BEGINS.get(form.syntax, ""):
                self._call.start()
                return (yield from self._read_form(form, bare=True))

    def _read_calls(self, mark: Mark) -> Steps[None]:
        self._may_be_bare = False
        self._call.start(mark.text)
        forms = [form for form in self._forms if mark in form.opens]
        sign = (yield from self._tape.skip_blanks()) if len(forms) > 1 else ""
        fitting = [form for form in forms if sign and sign in _BEGINS.get(form.syntax, "")]
        others = [form for form in forms if form.syntax not in _BEGINS]
        yield from self._read_form([*fitting, *others, *forms][0], bare=False)

    def _read_form(self, form: Calls, *, bare: bool) -> Steps[None]:
        closes = Search(() if bare else form.closes)
        bounds = Search(() if bare else (*form.closes, *form.opens))
        try:
            if form.syntax is Syntax.PYTHONIC:
                yield from read_pythonic(self._call)
            elif form.syntax is Syntax.XML:
                yield from read_xml(self._call, form, closes)
            elif form.syntax is Syntax.JSON_ARGUMENTS:
                yield from read_named(self._call, form, closes, bounds)
            else:
                yield from read_json(self._call, form, bounds, bare=bare)
            yield from self._close(closes)
        except NotACallError:
            yield from self._recover(form, closes)
        self._call.leave()

    def _close(self, closes: Search) -> Steps[None]:
        """The mark behind complete calls; models write a bracket too many before it."""
        while (sign := (yield from self._tape.skip_blanks())) and closes.marks:
            mark = yield from self._tape.mark_here(closes)
            self._tape.take(1 if mark is None and sign in "}]" else len(mark.text) if mark else 0)
            if mark is not None or sign not in "}]":
                return

    def _recover(self, form: Calls, closes: Search) -> Steps[None]:
        """From a call that was cut short: what it lacks can't be given, and what follows it is not its own."""
        if self._call.state is not State.GIVEN or not closes.marks:
            return
        if self._call.has_arguments and (yield from self._tape.mark_here(closes)) is not None:
            self._call.end()
        self._call.start()
        search = Search([*closes.marks, *form.opens])
        text, mark = yield from self._tape.until(search)
        while text and mark is None:
            text, mark = yield from self._tape.until(search)
        if mark is not None:
            self._call.drop()
            self._tape.put_back(0 if mark in closes.marks else len(mark.text))
