"""What a prompt leaves open for the answer: templates begin a model's message, some with its reasoning."""

from __future__ import annotations

from model.response.format import Mark, Opened, ResponseFormat


def initial_state(format: ResponseFormat, prompt: str) -> Opened:
    """Looks only behind the last anchor; without one, at the very end: marks elsewhere may be a user's text."""
    ends = [start + len(anchor) for anchor in format.anchors if (start := prompt.rfind(anchor)) >= 0]
    message = prompt[max(ends) :] if ends else ""
    opens = format.reasoning.opens if format.reasoning else ()
    closes = format.reasoning.closes if format.reasoning else ()
    last_open, last_close, last_text = (_last(message, marks) for marks in (opens, closes, format.text_opens))
    if _stands_at_end(prompt, opens) or last_open > max(last_close, last_text):
        return Opened.REASONING
    if _stands_at_end(prompt, format.text_opens) or last_text > max(last_close, _last(message, format.ends)):
        return Opened.TEXT
    if format.reasoning is not None and format.reasoning.at_start and last_close < 0:
        return Opened.REASONING
    said = message[last_close:].strip() if last_close >= 0 else message.strip()
    is_text = bool(said) and not _stands_at_end(prompt, closes) and not format.text_opens
    return Opened.TEXT if is_text else Opened.NOTHING


def _last(text: str, marks: tuple[Mark, ...]) -> int:
    """Where the last of them ends; -1 if there is none."""
    return max((start + len(mark.text) for mark in marks if (start := text.rfind(mark.text)) >= 0), default=-1)


def _stands_at_end(prompt: str, marks: tuple[Mark, ...]) -> bool:
    tail = prompt[-256:].rstrip()
    return any(tail.endswith(mark.text.rstrip()) for mark in marks)
