"""The tokens of one request on their way from the ring to its client.

A reader that waits is a task, and waking it for every token would cost more than writing the token. So it may provide
a function that writes tokens as they arrive; the task itself is woken for the end, for a failure, and when the client
does not keep up.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Sequence

from pipeline.front.http.errors import ClientGone
from pipeline.stats import Work
from pipeline.wire.request import Choice, Submit

PassOn = Callable[[list[bytes], int], bool]
"""Writes records, none of them the last one, to the client at once; in ns, when they were read off the ring. False:
the task has to write them."""


class TokenStream:
    """A buffer with one reader. Records are kept packed until their reader writes them out.

    The request and the ids of all its tokens are kept until the end, so that it can be resumed if a stage dies.
    """

    __slots__ = (
        "_failure",
        "_limit",
        "_over",
        "_pushed_ns",
        "_records",
        "_scores",
        "_waiter",
        "accepted",
        "accepted_in",
        "attempt",
        "cached_tokens",
        "choice",
        "first_id",
        "held",
        "home",
        "on_overrun",
        "on_weights",
        "pass_on",
        "prefilling",
        "prompt_tokens",
        "reports_acceptance",
        "request",
        "scored",
        "strikes",
        "submit",
        "taken_ns",
        "tokens",
        "waited_ns",
        "weights",
        "work",
    )

    def __init__(self, submit: Submit, choice: Choice, limit: int) -> None:
        self.submit, self.choice = submit, choice  # the prompt with all its choices, and this stream's
        self.request = choice.request
        self.attempt = choice.attempt  # which of its submissions counts
        self.tokens = array("i", choice.output)  # those that its client has
        self.prompt_tokens = 0  # known, as is the next, before the first token arrives
        self.cached_tokens = 0  # of the prompt, at the first admission
        self.first_id = -1  # of a prompt that is scored
        self.scored = choice.scored  # positions of the prompt, all before the first token arrives
        self._scores: list[bytes] = []
        self.taken_ns = 0  # when the oldest of the records that were taken last was read off the ring
        self.waited_ns: int | None = None  # in the queue
        self.work: Work | None = None  # what the devices had done when it got a row
        self.accepted = False  # it is in the queue, or past it
        self.accepted_in: tuple[int, int] | None = None  # replica and generation that have said so last
        self.held = False  # its reader waits for something else before it reads: that is not the client's fault
        self.strikes = 0  # how often it made preprocess fail
        self.home = 0  # the replica that it was sent to; NOWHERE: it waits for any
        self.weights: list[tuple[int, str]] = []  # from this token on, from 0, it is computed with these
        self.on_weights: Callable[[int, str], None] | None = None  # told when they change
        self.prefilling = False  # its replica has not yet said anything since; known where there are several
        self.on_overrun: Callable[[], None] | None = None
        self._limit = limit
        self._pushed_ns = 0
        self._records: list[bytes] = []
        self._over = False
        self._failure: Exception | None = None
        self.pass_on: PassOn | None = None  # gets records while the reader waits
        self._waiter: asyncio.Future[None] | None = None
        self.reports_acceptance = False  # by waking its reader

    @property
    def live(self) -> bool:
        """More tokens are expected."""
        return not self._over and self._failure is None

    def resumption(self) -> Choice:
        """Asks for the tokens that are missing: another attempt, and what the last one still says does not count."""
        self.attempt += 1
        return Choice(self.request, self.choice.seed, self.attempt, self.tokens.tobytes(), self.scored)

    def computed_with(self, weights: str) -> None:
        """From its next token on."""
        if note_weights(self.weights, len(self.tokens), weights) and self.on_weights is not None:
            self.on_weights(len(self.tokens), weights)

    def computed_before(self, weights: Sequence[tuple[int, str]]) -> None:
        """As far as it has tokens already, with these."""
        now, self.weights = self.weights, [one for one in weights if one[0] < len(self.tokens)]
        for first, one in now:
            note_weights(self.weights, first, one)

    def note(self, token: int, last: int) -> None:
        """A delta with this token has arrived; `push` follows."""
        self.tokens.append(token)
        if last:
            self._over = True

    def note_scores(self, record: bytes, count: int) -> None:
        """Of so many more positions of the prompt."""
        self.scored += count
        self._scores.append(record)
        self._wake()

    def take_scores(self) -> list[bytes]:
        """Records of scores that have arrived. Raises ApiError, ClientGone instead of none."""
        if not self._scores and self._failure is not None:
            raise self._failure
        records, self._scores = self._scores, []
        return records

    def push(self, records: list[bytes], now_ns: int) -> None:
        """Deltas that were read off the ring together. Beyond the limit the client, which does not read, is
        disconnected."""
        if not self._records:
            self._pushed_ns = now_ns
        self._records += records
        if self._waiter is not None:
            if not self._passed_on(now_ns):
                self._wake()
        elif len(self._records) > self._limit and not self.held:
            self._overrun()

    def _passed_on(self, now_ns: int) -> bool:
        if self.pass_on is None or self._over:
            return False
        try:
            passed_on = self.pass_on(self._records, now_ns)
        except Exception as error:  # noqa: BLE001 - it concerns this stream only
            self.fail(error)
            return True
        if passed_on:
            self._records = []
        return passed_on

    def accept(self, prompt_tokens: int, first_id: int) -> None:
        self.accepted = True
        self.prompt_tokens, self.first_id = prompt_tokens, first_id
        if self.reports_acceptance:
            self._wake()

    def fail(self, failure: Exception) -> None:
        """Records pushed before are still delivered; the first failure counts."""
        if self._failure is None:
            self._failure = failure
        self._wake()

    def stop(self) -> None:
        """The reader takes no more records."""
        self._over = True

    def disconnect(self, why: str) -> None:
        self._records.clear()
        self._scores.clear()
        self.fail(ClientGone(why))

    @property
    def failure(self) -> Exception | None:
        return self._failure

    def take(self) -> list[bytes]:
        """All records that have arrived and were not passed on. Raises ApiError, ClientGone instead of none."""
        if not self._records and self._failure is not None:
            raise self._failure
        records, self._records = self._records, []
        self.taken_ns = self._pushed_ns
        return records

    def wake(self, waiter: asyncio.Future[None], pass_on: PassOn | None = None) -> None:
        """Set this future as soon as something happens; other streams may share it. Records that arrive until then
        are given to `pass_on` first."""
        self._waiter, self.pass_on = waiter, pass_on

    def _overrun(self) -> None:
        self._records.clear()
        self.fail(ClientGone(f"the client did not read {self._limit} tokens"))
        if self.on_overrun is not None:
            self.on_overrun()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def note_weights(noted: list[tuple[int, str]], first: int, weights: str) -> bool:
    """From token `first` on it is these; whether that is news. What was to come from there on did not."""
    while noted and noted[-1][0] >= first:
        del noted[-1]
    if noted and noted[-1][1] == weights:
        return False
    noted.append((first, weights))
    return True
