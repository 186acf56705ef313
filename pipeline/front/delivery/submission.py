"""A request as it is sent to preprocess, and the tokens that its API key has left for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from pipeline.front.delivery.job import Part
from pipeline.front.delivery.progress import Progress
from pipeline.front.http.account import Account
from pipeline.front.http.errors import ApiError
from pipeline.wire.request import ALL_SCORED, NOBODY, Choice, Owner, Submit, choose_seeds

_CHARACTERS: Final = 4  # of a token, in the mean: for a guess
_BACKGROUND: Final = 0.25  # of its key's weight has what no client waits for


def messages(
    parts: Sequence[Part],
    progresses: Sequence[Progress],
    account: Account | None,
    deadline_ns: int,
    *,
    background: bool = False,
) -> list[Submit]:
    """One for each part. `background`: no client waits for them. Raises ApiError 400."""
    left = iter(progresses)
    return [
        _message(
            part, list(islice(left, part.choices)), _owner(account, part.params.priority, background), deadline_ns
        )
        for part in parts
    ]  # fmt: skip


def _message(part: Part, progresses: Sequence[Progress], owner: Owner, deadline_ns: int) -> Submit:
    describe(part, progresses)
    seeds = choose_seeds(part.params, part.choices)
    scored = (0, *(ALL_SCORED for _ in seeds[1:]))  # once for all of them, if at all
    each = zip(progresses, seeds, scored, strict=True)
    return Submit.of(
        [Choice(progress.request, seed, scored=done) for progress, seed, done in each],
        part.prompt,
        part.params,
        add_special=part.add_special,
        arrival_ns=progresses[0].arrival,
        plain=part.plain,
        owner=owner,
        deadline_ns=deadline_ns,
    )


def describe(part: Part, progresses: Sequence[Progress]) -> None:
    """What is told of them, as far as the part says it."""
    for progress in progresses:
        progress.max_tokens, progress.adapter = part.params.max_tokens, part.params.adapter
        progress.repeats = progress is not progresses[0]


def _owner(account: Account | None, priority: int, background: bool) -> Owner:
    """Raises ApiError 400 for a class before that of the key."""
    if account is None:
        owner = Owner(priority=priority) if priority else NOBODY
    else:
        key = account.key
        if priority < 0 and not key.operator:
            told = f"priority is {priority}, expected at least 0: it is added to the API key's own"
            raise ApiError(400, told, parameter="priority")
        owner = Owner(key.number, key.weight, key.priority + priority)
    return owner.in_background(_BACKGROUND) if background else owner


class Reservation:
    """Of the tokens that a key may have: what a request will cost, as far as that is known before. Raises ApiError
    429 where the key has not as many left, unless it was let in before (`again`)."""

    def __init__(self, account: Account, parts: Sequence[Part], *, again: bool = False) -> None:
        self._account, self._parts = account, parts
        self._tokens = sum(map(_expected, parts))
        account.reserve(self._tokens, again=again)

    def settle(self, progresses: Sequence[Progress]) -> None:
        """Count what it has come to instead."""
        left = iter(progresses)
        used = sum(_used(islice(left, part.choices)) for part in self._parts)
        self._account.settle(self._tokens, used)


def _used(progresses: Iterator[Progress]) -> int:
    """By the choices of a prompt, at least one."""
    each = [(progress.prompt, progress.tokens) for progress in progresses]
    return max(prompt for prompt, _ in each) + sum(tokens for _, tokens in each)


def _expected(part: Part) -> int:
    """Tokens of a prompt and its answers. Of a text that is not tokenized yet it is a guess; of an answer without a
    limit of its own it is nothing."""
    prompt = len(part.prompt) // _CHARACTERS if isinstance(part.prompt, str) else len(part.prompt)
    return prompt + (0 if part.params.open_ended else part.params.max_tokens * part.choices)
