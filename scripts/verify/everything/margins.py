"""Why an answer became another one: how near a tie it was where it parted.

Sums are rounded in another order where a step has another shape. A greedy text parts where two tokens are nearly
equal: by their log-probabilities, in both answers or in a twin that has them. A drawn one parts where what was drawn
lies at the border between two tokens: how near, no answer says; but then it also parts while nothing happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scripts.lab.errors import BenchError
from scripts.lab.http import Client, post_json
from scripts.verify.everything.answers import Choice, Scored, apart_before, flip, scored, text_of
from scripts.verify.everything.asking import Asked, ask
from scripts.verify.everything.kinds import Kind

MOST_APART = 1e-4  # log-probabilities of a near tie
_COMPANY = (1, 1, 2, 4, 8)  # so many of the same at once, while nothing happens


@dataclass(frozen=True, slots=True)
class Parting:
    """`near`: a near tie. `place`: choice, position, and the tokens before and now."""

    near: bool
    place: tuple[Choice, int, str, str]
    told: str


async def explain(port: int, kind: Kind, wanted: Sequence[Any], got: Sequence[Any]) -> Parting | None:
    """None: nothing is known of it."""
    before, now = scored(wanted), scored(got)
    if kind.twin is not None:
        return await _by_twin(port, kind, text_of(wanted), text_of(got))
    for choice in before:
        if (found := flip(before[choice], now.get(choice, []))) is not None:
            at, apart, what = found
            drift = apart_before(before[choice], now[choice], at)
            told = f"choice {choice}, token {at}: {what}: {apart:.2g} apart, {drift:.2g} before"
            place = choice, at, before[choice][at].token, now[choice][at].token
            near = apart <= MOST_APART
            if kind.drawn and (near := await _comes_anyway(port, kind, place)):
                told += "; a draw at a border, which also goes there while nothing happens"
            return Parting(near and drift <= MOST_APART, place, told)
    return None


async def _comes_anyway(port: int, kind: Kind, place: tuple[Choice, int, str, str]) -> bool:
    choice, at, _, now = place
    for many in _COMPANY:
        answers = [Asked() for _ in range(many)]
        await asyncio.gather(*(ask(port, kind, one, 0) for one in answers))
        for one in answers:
            tokens = scored(one.events).get(choice, [])
            if len(tokens) > at and tokens[at].token == now:
                return True
    return False


async def _by_twin(port: int, kind: Kind, wanted: str, got: str) -> Parting | None:
    assert kind.twin is not None
    path, body = kind.twin
    body = {key: value for key, value in body.items() if key not in ("stream", "stream_options", "background")}
    try:
        answer = await post_json(Client(f"http://127.0.0.1:{port}", keep_alive=False), path, body)
    except (BenchError, OSError):
        return None
    return near(next(iter(scored([answer]).values()), []), wanted, got)


def near(tokens: Sequence[Scored], wanted: str, got: str) -> Parting | None:
    """Of two texts, by the tokens of one of them or of another that parts nowhere before."""
    common = next((at for at, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), None)
    end = 0
    for at, token in enumerate(tokens if common is not None else ()):
        begin, end = end, end + len(token.token)
        if common is not None and common < end:
            one, other = (
                max((name for name in token.top if text[begin:].startswith(name)), key=len, default="")
                for text in (wanted, got)
            )
            if not one or not other or one == other:
                return None
            apart = abs(token.top[one] - token.top[other])
            told = f"token {at}: {one!r}, now {other!r}: {apart:.2g} apart"
            return Parting(apart <= MOST_APART, ("", at, one, other), told)
    return None
