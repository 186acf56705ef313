"""Asks one replica for a token, to see whether it answers: with new weights, before the next replica gets them."""

from __future__ import annotations

import asyncio
import time
from array import array

from model.sampling import SamplingParams
from pipeline.front.delivery.backend import Backend
from pipeline.front.delivery.stream import TokenStream
from pipeline.front.http.errors import ApiError
from pipeline.wire.delta import unpack_delta
from pipeline.wire.request import Choice, Owner, Request, Submit

_FIRST = Owner(priority=-(2**31))  # nobody waits longer for it than for one token
_AGAIN_S = 0.2
_LATER = (429, 503)  # statuses of a replica that is busy, or between two generations
_PROMPT = array("i", [0])  # an id that every vocabulary has
_GREEDY = Request(sampling=SamplingParams(temperature=0.0), max_tokens=1, ignore_eos=True)


async def probe(backend: Backend, replica: int) -> str:
    """Why it does not answer; empty if it does. While it is busy, it is asked again."""
    while True:
        choice = Choice(backend.new_id(), 0, attempt=1)  # as if resumed: no full queue turns it away
        asked = Submit.of([choice], _PROMPT, _GREEDY, arrival_ns=time.monotonic_ns(), owner=_FIRST)
        stream = backend.submit_to(replica, asked)
        try:
            return await _answer(stream)
        except ApiError as error:
            if error.status not in _LATER:
                return error.message
        finally:
            backend.finish(stream, cancel=not stream.tokens)
        await asyncio.sleep(_AGAIN_S)


async def _answer(stream: TokenStream) -> str:
    """Raises ApiError."""
    while not (records := stream.take()):
        waiter = asyncio.get_running_loop().create_future()
        stream.wake(waiter)
        await waiter
    last = unpack_delta(records[-1])
    return (last.text or "the model failed") if last.token_id < 0 else ""
