"""A constant number of streams of known text, and what is wrong with those that have ended."""

from __future__ import annotations

import asyncio
import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from scripts.verify.survival.streams import Job, Stream, Token, read

_WORDS = ("ring", "buffer", "slot", "memory", "token", "step", "row", "block", "cache", "model", "shared", "queue")
_RETRY_S = 0.05


def jobs(count: int, tokens: int) -> list[Job]:
    """Both APIs; every third is sampled, with a seed; prompts and answers of different lengths."""
    made = []
    for i in range(count):
        prompt = " ".join(itertools.islice(itertools.cycle(_WORDS[i % len(_WORDS) :] + _WORDS), 3 + 5 * i % 37))
        length = max(1, tokens * (60 + 7 * i % 41) // 100)
        sampled = i % 3 == 0
        if i % 2:
            made.append(Job.completion(prompt, length, **({"temperature": 0.9, "seed": i} if sampled else {})))
        else:
            options = {"do_sample": True, "temperature": 0.9, "top_k": 40, "seed": i} if sampled else {}
            made.append(Job.llm_serving(prompt, length, **options))
    return made


@dataclass(slots=True)
class Tally:
    """What has been found wrong, and how much was looked at."""

    streams: int = 0
    tokens: int = 0
    lost: int = 0  # tokens
    doubled: int = 0
    cut_off: int = 0  # streams that lost their connection to a front that was killed, and were not kept
    returns: int = 0  # of clients that had lost it
    wrong: list[str] = field(default_factory=list)

    def complete(self, job: Job, stream: Stream, expected: Sequence[Token]) -> None:
        """A stream that should be whole."""
        self.streams += 1
        self.tokens += len(stream.tokens)
        if stream.error:
            self.wrong.append(f"{job}: {stream.error}")
        elif stream.tokens != list(expected) or stream.reason is None:
            self._differs(job, stream, expected)

    def partial(self, job: Job, stream: Stream, expected: Sequence[Token]) -> None:
        """A stream that was cut off with its front: what came is the beginning of the whole."""
        self.cut_off += 1
        self.tokens += len(stream.tokens)
        if stream.tokens != list(expected[: len(stream.tokens)]):
            self._differs(job, stream, expected[: len(stream.tokens)])

    def _differs(self, job: Job, stream: Stream, expected: Sequence[Token]) -> None:
        lost = doubled = 0
        for kind, a, b, c, d in difflib.SequenceMatcher(None, expected, stream.tokens, autojunk=False).get_opcodes():
            if kind != "equal":
                lost, doubled = lost + b - a, doubled + d - c
        self.lost, self.doubled = self.lost + lost, self.doubled + doubled
        wanted, got = "".join(text for text, _ in expected), stream.text
        self.wrong.append(f"{job}: {lost} tokens lost, {doubled} too many: {got!r} is not {wanted!r}")


class Load:
    """`run` keeps one stream of each job going until `stop`; then it lets them end.

    With `detached_s` requests go on so long without their clients, which come back. Else streams may break while
    `front_hit` is set, because a front is being lost.
    """

    def __init__(
        self, port: int, work: Sequence[Job], expected: Sequence[Sequence[Token]], detached_s: float = 0
    ) -> None:
        self.tally = Tally()
        self.live: dict[int, Stream] = {}
        self.front_hit = False
        self._port, self._jobs, self._expected = port, work, expected
        self._stopping, self._detached_s = False, detached_s
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._repeat(i)) for i in range(len(self._jobs))]

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _repeat(self, i: int) -> None:
        job, expected = self._jobs[i], self._expected[i]
        while not self._stopping:
            stream = self.live[i] = Stream()
            await read(self._port, job, stream, detached_s=self._detached_s)
            del self.live[i]
            self.tally.returns += stream.returns
            if stream.broken and self.front_hit and not self._detached_s:
                self.tally.partial(job, stream, expected)
                await asyncio.sleep(_RETRY_S)
            else:
                self.tally.complete(job, stream, expected)


async def undisturbed(port: int, work: Sequence[Job]) -> list[list[Token]]:
    """What each job comes to while nothing happens; all at once. Raises ValueError when one of them fails."""
    streams = [Stream() for _ in work]
    await asyncio.gather(*(read(port, job, stream) for job, stream in zip(work, streams, strict=True)))
    for job, stream in zip(work, streams, strict=True):
        if stream.error:
            raise ValueError(f"{job}: {stream.error}")
    return [stream.tokens for stream in streams]
