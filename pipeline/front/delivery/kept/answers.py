"""All answers that a front keeps: which requests have one, who may collect it, and how much memory they take."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import Final

import ipc
from pipeline.front.delivery.deadline import HEADER as DEADLINE
from pipeline.front.delivery.kept.answer import KeptAnswer, KeptExchange, Make
from pipeline.front.delivery.kept.journal import Found, Journal, make_journal, renumbered
from pipeline.front.delivery.live import seed_of
from pipeline.front.delivery.tracing import TRACEPARENT
from pipeline.front.http.account import Account
from pipeline.front.http.errors import NOT_FOUND, OVERLOADED, SERVER, ApiError, retry_later
from pipeline.front.http.exchange import REQUEST_ID, Exchange
from pipeline.front.http.request_parser import Head
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import FAILS_TWICE

log = logging.getLogger("ringserve.front")

DETACHED: Final = b"x-detached-s"
"""Header: how many seconds the request goes on without its client, and its answer is kept."""

TIMINGS: Final = b"x-ringserve-timings"
"""Header, "1": return the headers x-…-ms."""

_SHAPING: Final = (TIMINGS, DEADLINE, REQUEST_ID, TRACEPARENT)
_SECONDS = re.compile(rb"\d{1,7}(\.\d{1,6})?\Z")
_MOST_BARREN: Final = 2  # fronts that end without a token of a request, before it is tried alone, and then refused
_FULL: Final = 0.75  # of the memory: beyond it no more are begun
_TIGHT: Final = 0.95  # of it: so much room is made at once, since looking for it takes time
_STEP: Final = 1 << 16  # bytes of the journal after which memory is looked at, or less where little may be kept
_STEPS: Final = 64  # in what may be kept


Route = Callable[[str], Make | None]
"""Who makes answers to requests of this path, if anybody does."""


def _nowhere(_: str) -> None:
    """Before `restore`."""


class Background(Enum):
    """Whether an answer is made in the background, as OpenAI's Responses may be: a client that streams waits for it
    nevertheless."""

    NO = 0
    STREAMED = 1
    ALONE = 2


class KeptAnswers:
    """Of one front. `log_fd`: the journal's memory, in which a front before may have written; without it a front's
    death ends them all. Made inside a running loop."""

    def __init__(self, settings: FrontSettings, log_fd: int | None = None) -> None:
        self._settings = settings
        self._answers: dict[str, KeptAnswer] = {}
        self._live: dict[str, KeptAnswer] = {}  # that are not complete, nor were when a front before ended
        self._complete = _Complete()
        self._shown = 0  # bytes of events
        self._own_fd, self.journal = self._open(log_fd)
        self._route: Route = _nowhere
        self._trying: asyncio.Task[None] | None = None

    def _open(self, log_fd: int | None) -> tuple[int | None, Journal]:
        """The descriptor to close, and the journal: an empty one in place of a log that can't be read."""
        grown = partial(asyncio.get_running_loop().call_soon, self._look)
        rest = self._numbers, grown, min(_STEP, self._settings.kept_bytes // _STEPS)
        if log_fd is not None:
            try:
                return None, Journal(log_fd, *rest)
            except (ipc.CorruptLogError, OSError):
                log.exception("the journal can't be taken over: this front begins one that ends with it")
        made = make_journal(self._settings.kept_bytes)
        return made, Journal(made, *rest)

    def _numbers(self) -> list[int]:
        return [answer.writer.owner for answer in self._answers.values()]

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def used(self) -> int:
        """Bytes."""
        return self._shown + self.journal.written

    # ---- new ones -------------------------------------------------------------------------------------------------

    def seconds(self, exchange: Exchange) -> float:
        """How long this request may go on without its client; 0: it ends with it. Raises ApiError 400."""
        asked, most = exchange.headers.get(DETACHED), self._settings.max_detached_s
        if asked is None:
            return min(self._settings.detached_s, most)
        if not _SECONDS.match(asked) or float(asked) > most:
            name = DETACHED.decode()
            raise ApiError(400, f"the header {name} must be a number from 0 to {most:g}", parameter=name)
        return float(asked)

    async def serve(
        self, exchange: Exchange, seconds: float, make: Make, background: Background = Background.NO
    ) -> None:
        """As `make` would, but its answer is kept. Raises ApiError, ClientGone."""
        asked = DETACHED in exchange.headers or background is not Background.NO
        full = self._why_full(exchange.key)
        if full and not asked:
            await make(exchange)
            return
        if full:
            raise retry_later(429, full, OVERLOADED)
        answer = self._new(exchange, seconds, asked=asked)
        exchange.metered = True
        answer.begin(make)
        if background is not Background.ALONE:
            await answer.audience.play(exchange, 0)
            return
        await answer.opening(exchange)
        await exchange.respond(200, answer.pending, headers=[answer.written.name])

    def _new(self, exchange: Exchange, seconds: float, *, asked: bool) -> KeptAnswer:
        head = Head(exchange.method, exchange.path, exchange.query, exchange.headers, modern=True, keep_alive=False)
        own = KeptExchange(head, self._settings, exchange)
        own.seed, own.client_id, own.request_id = exchange.seed, exchange.client_id, exchange.request_id
        own.account, own.arrival_ns = exchange.account, time.monotonic_ns()
        own.kept_headers = tuple((name, exchange.headers[name]) for name in _SHAPING if name in exchange.headers)
        answer = self._answers[own.seed] = self._live[own.seed] = KeptAnswer(
            own, exchange.key, seconds, self, asked=asked
        )
        return answer

    def _why_full(self, key: str) -> str:
        """Too full for another one of this key, in memory or in the queue; empty if not."""
        if not self._make_room(int(_FULL * self._settings.kept_bytes)) and _has_its_share(key, self._held()):
            return "there is no room to keep another answer; try again later"
        alone, most = self._alone(), self._settings.max_background
        if alone.total() >= most and _has_its_share(key, alone):
            told = f"{alone.total()} texts are generated here that no client waits for (pipeline.max_background)"
            return f"{told}; try again when some of them are complete"
        return ""

    def _alone(self) -> Counter[str]:
        """Texts of each key that wait or run though no client reads them."""
        alone = Counter[str]()
        for answer in self._live.values():
            if not answer.audience.attended:
                alone[answer.key] += answer.texts
        return alone

    def _held(self) -> Counter[str]:
        """Bytes of each key, roughly."""
        held = self._complete.weights.copy()
        for answer in self._live.values():
            held[answer.key] += answer.weight
        return held

    # ---- those that are there -------------------------------------------------------------------------------------

    def find(self, name: str, account: Account | None, *, make: bool = True) -> KeptAnswer:
        """By its id, as a header or the answer has it. Raises ApiError 404 for one that is not there, or is another
        key's: the two look alike. `make`: one of a front before is made again, if it was not yet."""
        answer = self._answers.get(seed_of(name))
        if answer is None or answer.key != ("" if account is None else account.key.digest):
            told = "no answer with this id is kept; expected the x-stream-id of a request with x-detached-s"
            raise ApiError(404, told, kind=NOT_FOUND, parameter="id")
        if make and not answer.begun and answer.written.error is None and answer.ended is not None:
            self._make_again(answer)
        return answer

    def _make_again(self, answer: KeptAnswer) -> None:
        if (maker := self._route(answer.exchange.path)) is not None:
            answer.begin(maker)

    # ---- of the front before --------------------------------------------------------------------------------------

    def restore(self, route: Route, accounts: Callable[[str], Account | None], new_id: Callable[[], int]) -> None:
        """Go on with what a front before has left. `accounts`: by digest; `new_id`: of a text."""
        self._route = route
        for found in self.journal.read():
            make, account = route(found.opened.path), accounts(found.opened.key) if found.opened.key else None
            if make is None or (account is None and found.opened.key):
                continue
            try:
                self._restore(renumbered(found, new_id), account)
            except Exception:
                log.exception("request %s can't be read from the journal: it is lost", found.opened.seed)
        answers = self._answers.values()
        self.journal.rewrite([(answer.writer, answer.found) for answer in answers if answer.found is not None])
        for answer in answers:
            if answer.ended is not None:
                self._complete.add(answer)
            else:
                self._live[answer.seed] = answer
        self._go_on()
        if self._answers:
            under_way = sum(not answer.written.over and answer.ended is None for answer in answers)
            log.warning("%d answers of the front before are kept, %d go on", len(answers), under_way)

    def _go_on(self) -> None:
        """At once, unless fronts have died of it: then one by one, so that it is known of which."""
        for answer in self._live.values():
            if answer.barren > _MOST_BARREN:
                log.error("request %s may have made a front fail %d times: it is refused", answer.seed, answer.barren)
                answer.refuse(ApiError(500, FAILS_TWICE, kind=SERVER))
        waiting = [answer for answer in self._answers.values() if answer.ended is None]
        suspects = [answer for answer in waiting if answer.barren >= _MOST_BARREN]
        if suspects:
            others = [answer for answer in waiting if answer.barren < _MOST_BARREN]
            self._trying = asyncio.create_task(self._try_each([*suspects, *others]))
            return
        for answer in waiting:
            self._make_again(answer)

    async def _try_each(self, answers: Sequence[KeptAnswer]) -> None:
        for answer in answers:
            if answer.seed in self._answers and not answer.written.over:
                proof = answer.prove()
                self._make_again(answer)
                await proof.wait()

    def _restore(self, found: Found, account: Account | None) -> None:
        opened = found.opened
        barren = _barren(found)
        own = KeptExchange(
            Head("POST", opened.path, b"", dict(opened.headers), modern=True, keep_alive=False), self._settings
        )
        own.seed, own.account, own.content, own.created = opened.seed, account, opened.body, opened.created
        own.request_id = own.client_id or own.seed.encode()
        own.arrival_ns, own.kept_headers, own.again = opened.arrival_ns, opened.headers, True
        answer = KeptAnswer(own, opened.key, opened.seconds, self)
        answer.resume(found, barren)
        self._answers[own.seed] = answer
        answer.audience.wait()

    # ---- how much they take ---------------------------------------------------------------------------------------

    def _look(self) -> None:
        """The journal has grown."""
        if self.used > self._settings.kept_bytes:
            self._overflow()
        self.journal.watch(closely=self.used > self._settings.kept_bytes)

    def _overflow(self) -> None:
        """If there is no other room, the newest of the key that holds the most gives way: rather one that can go on
        without being kept."""
        most = self._settings.kept_bytes
        if self._make_room(int(_TIGHT * most)) or self.used <= most:
            return
        held = self._held()
        being_made = [one for one in reversed(self._live.values()) if one.begun]
        if not being_made:
            return
        key = max((one.key for one in being_made), key=lambda key: held[key])
        own = [one for one in being_made if one.key == key]
        newest = next((one for one in own if one.releasable), own[0])
        if newest.releasable:
            self._remove(newest)
            newest.release()
        else:
            newest.overflow()

    def _make_room(self, most: int) -> bool:
        """By what is complete of the key that holds the most, the oldest first."""
        if self.used <= most:
            return True
        held = self._held()
        while self.used > most and held:
            key = max(held, key=lambda key: held[key])
            oldest = self._complete.oldest(key)
            if oldest is None:
                return False
            held[key] -= oldest.weight
            self.drop(oldest)
        return self.used <= most

    # ---- see `Keeper` ---------------------------------------------------------------------------------------------

    def grew(self, size: int) -> None:
        self._shown += size

    def over(self, answer: KeptAnswer) -> None:
        if answer.proof is not None:
            answer.proof.set()
        self._live.pop(answer.seed, None)
        if not answer.is_open:
            self.drop(answer)  # it was refused: its client knows
        elif answer.seed in self._answers:
            self._complete.add(answer)

    def drop(self, answer: KeptAnswer) -> None:
        if answer.seed in self._answers:
            self._remove(answer)
            answer.discard()

    def _remove(self, answer: KeptAnswer) -> None:
        """It counts no longer."""
        del self._answers[answer.seed]
        if answer.proof is not None:
            answer.proof.set()
        self._live.pop(answer.seed, None)
        self._complete.discard(answer)
        self._shown -= answer.size
        self.journal.forget(answer.writer)

    # ---- the end --------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """The server shuts down: answers that are being made end with an error."""
        if self._trying is not None:
            self._trying.cancel()
        for answer in list(self._answers.values()):
            answer.stop()

    def close(self) -> None:
        self.stop()
        self.journal.close()
        if self._own_fd is not None:
            os.close(self._own_fd)


class _Complete:
    """Answers that wait for clients only, and what those of each key take: there may be tens of thousands, so that
    nothing may look at each."""

    def __init__(self) -> None:
        self._weights: defaultdict[str, dict[KeptAnswer, int]] = defaultdict(dict)  # by key, the oldest first
        self.weights = Counter[str]()  # by key

    def add(self, answer: KeptAnswer) -> None:
        self.discard(answer)
        weight = self._weights[answer.key][answer] = answer.weight
        self.weights[answer.key] += weight

    def discard(self, answer: KeptAnswer) -> None:
        own = self._weights[answer.key]
        self.weights[answer.key] -= own.pop(answer, 0)
        if not own:
            del self._weights[answer.key], self.weights[answer.key]

    def oldest(self, key: str) -> KeptAnswer | None:
        return next(iter(self._weights.get(key, ())), None)


def _has_its_share(key: str, held: Counter[str]) -> bool:
    """What others hold beyond theirs does not keep it out."""
    return held[key] * len(held.keys() | {key}) >= held.total()


def _barren(found: Found) -> int:
    """How many fronts have ended in a row without anything more of it; beyond two, only those while it was tried."""
    opened = found.opened
    if len(found.records) != opened.recorded:
        return 1
    return opened.barren + 1 if found.tried else min(opened.barren + 1, _MOST_BARREN)
