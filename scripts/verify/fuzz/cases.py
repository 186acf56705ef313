"""What a client does on one connection, from the seed and the number of the case alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from random import Random

from scripts.verify.fuzz import bodies, messages
from scripts.verify.fuzz.framing import cases as framings

LAST = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""Behind everything else: if it is understood, the server and the client agree where requests begin and end."""


_FRAMINGS = tuple(framings())


class Ending(Enum):
    """What the client does when it has sent everything."""

    READ = "reads until the server closes"
    HALF = "says that it sends nothing more, then reads until the server closes"
    GLANCE = "reads a little and closes"
    CLOSE = "closes"
    RESET = "resets"


@dataclass(frozen=True, slots=True)
class Case:
    """`parts` are sent one by one, with `pause_s` between them."""

    number: int
    parts: tuple[bytes, ...]
    ending: Ending = Ending.READ
    pause_s: float = 0.0
    bodiless: bool = False  # the first answer has none, whatever its headers say: it is to a HEAD request
    answers: int | None = None  # as many there must be; none of them to what is the body of a request

    @property
    def data(self) -> bytes:
        return b"".join(self.parts)


def make_case(seed: int, number: int) -> Case:
    random = Random(f"{seed}/{number}")  # noqa: S311 - to be repeatable is the point
    kind = random.random()
    for share, make in _KINDS:
        if kind < share:
            return make(number, random)
        kind -= share
    raise AssertionError("the shares sum up to less than 1")


def _json(number: int, random: Random) -> Case:
    """The body is wrong."""
    return Case(number, (_post(random, bodies.spoilt) + LAST,))


def _http(number: int, random: Random) -> Case:
    """The request is wrong as HTTP."""
    return Case(number, (messages.malformed(random) + LAST,))


def _good(number: int, random: Random) -> Case:
    """Nothing is wrong; what is asked for is all over the API."""
    if random.random() < 0.3:
        target = random.choice(messages.GET_PATHS).encode()
        head = random.random() < 0.3
        return Case(number, (messages.request(b"HEAD" if head else b"GET", target) + LAST,), bodiless=head)
    if random.random() < 0.1:
        return Case(number, (messages.request(b"POST", random.choice(messages.CANCEL_PATHS), b"{}") + LAST,))
    return Case(number, (_post(random, bodies.valid) + LAST,))


def _framed(number: int, random: Random) -> Case:
    """The body is a request, and where it ends can be read in several ways."""
    framing = random.choice(_FRAMINGS)
    data, answers = framing.message + LAST, 1 if framing.closes or not framing.right else 2
    cuts = sorted(random.randrange(1, len(data)) for _ in range(random.randrange(4)))
    parts = tuple(data[begin:end] for begin, end in pairwise((0, *cuts, len(data))))
    ending = random.choice((Ending.READ, Ending.READ, Ending.HALF))
    return Case(number, parts, ending, pause_s=random.choice((0.0, 0.002)), answers=answers)


def _pipelined(number: int, random: Random) -> Case:
    """Several at once, right and wrong ones."""
    parts = [
        _post(random, random.choice((bodies.valid, bodies.spoilt))) for _ in range(random.choice((2, 3, 5, 20, 40)))
    ]
    if random.random() < 0.3:
        parts.insert(random.randrange(len(parts)), messages.malformed(random))
    return Case(number, (b"".join(parts) + LAST,))


def _in_pieces(number: int, random: Random) -> Case:
    """Every piece is a packet of its own."""
    data = (
        random.choice((_post(random, bodies.valid), _post(random, bodies.spoilt), messages.malformed(random))) + LAST
    )
    return Case(number, tuple(_pieces(data, random)), pause_s=random.choice((0.0, 0.0, 0.002)))


def _cut_off(number: int, random: Random) -> Case:
    """The client goes away in the middle of its request."""
    data = _post(random, bodies.valid)
    ending = random.choice((Ending.CLOSE, Ending.RESET, Ending.HALF))
    return Case(number, (data[: random.randrange(len(data))],), ending)


def _impatient(number: int, random: Random) -> Case:
    """The client goes away before its answer is complete."""
    ending = random.choice((Ending.GLANCE, Ending.GLANCE, Ending.CLOSE, Ending.RESET, Ending.HALF))
    parts = []
    for _ in range(random.choice((1, 1, 3))):
        body = b'{"inputs":"What is a ring?","parameters":{"max_new_tokens":%d}}' % random.randrange(20, 100)
        named = (b"X-Request-Id: named",) if random.random() < 0.3 else ()
        late = (b"X-Request-Timeout-Ms: %d" % random.randrange(1, 20),) if random.random() < 0.3 else ()
        kept = (b"X-Detached-S: " + random.choice((b"0.05", b"1", b"20")),) if random.random() < 0.3 else ()
        parts.append(messages.request(b"POST", b"/models/llama2/generate_stream", body, (*named, *late, *kept)))
    return Case(number, (b"".join(parts),), ending)


def _unfinished(number: int, random: Random) -> Case:
    """The client waits for the answer to a request that it has not sent in full."""
    data = _post(random, bodies.valid)
    return Case(number, (data[: random.randrange(1, len(data))],))


def _too_large(number: int, random: Random) -> Case:
    """A body around the limit and beyond it, announced or not."""
    limit = 200_000
    size = random.choice((limit - 1, limit, limit + 1, 3 * limit, 1_500_000))
    body = bodies.valid("/v1/completions", random).ljust(size)
    if random.random() < 0.5:
        return Case(number, (messages.request(b"POST", b"/v1/completions", body) + LAST,))
    return Case(number, (messages.chunked(b"/v1/completions", body, Random(1)) + LAST,))  # noqa: S311


def _old(number: int, random: Random) -> Case:
    """HTTP/1.0: the answer ends with the connection."""
    return Case(number, (_post(random, bodies.valid).replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1),))


_KINDS = (
    (0.42, _json), (0.20, _http), (0.08, _framed), (0.08, _good), (0.05, _pipelined), (0.06, _in_pieces),
    (0.04, _cut_off), (0.03, _impatient), (0.005, _unfinished), (0.005, _too_large), (0.03, _old),
)  # fmt: skip


def _post(random: Random, make: Callable[[str, Random], bytes]) -> bytes:
    path = random.choice(bodies.PATHS)
    body = make(path, random)
    if random.random() < 0.15:
        return messages.chunked(path.encode(), body, random)
    return messages.request(b"POST", path.encode(), body)


def _pieces(data: bytes, random: Random) -> Iterator[bytes]:
    place, size = 0, random.choice((1, 3, 17, 200))
    if size == 1:
        data = data[-300:] if random.random() < 0.5 else data[:300]
    while place < len(data) and place < 60 * size:
        yield data[place : place + size]
        place += size
    yield data[place:]
