"""Requests that make inference fail: a real server, whose emulated device fails at one token.

They are refused after the second time, by an explicit error; all others go on to their last token.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

import pytest

from model.emulated import expected_tokens
from pipeline.config import load_configuration
from pipeline.runtime.engines import make_runner
from pipeline.runtime.tokenizer import open_tokenizer
from scripts.lab.server import launched
from scripts.verify import chaos
from scripts.verify.survival.load import jobs, undisturbed
from scripts.verify.survival.session import EMULATED
from scripts.verify.survival.streams import Job, Stream, read

OUTSIDE = 299  # below the range of tokens that the device chooses from


@pytest.fixture
def serve(tmp_path):
    """Starts a server whose device fails in this way at this token."""
    with contextlib.ExitStack() as stack:

        def start(fault, token):
            sets = (*chaos.DEFAULTS, f"pipeline.runner.fault={fault}", f"pipeline.runner.fault_token={token}")
            return stack.enter_context(launched(EMULATED, sets, tmp_path / "log"))

        yield start


async def beside(server, poison, work):
    """Streams of `work`, and of `poison` a little later; all to their ends."""
    streams, bad = [Stream() for _ in work], Stream()
    tasks = [asyncio.create_task(read(server.port, job, stream)) for job, stream in zip(work, streams, strict=True)]
    while not all(len(stream.tokens) > 3 for stream in streams):
        await asyncio.sleep(0.01)
    await asyncio.gather(read(server.port, poison, bad), *tasks)
    return streams, bad


@pytest.mark.parametrize("fault", ["segfault", "error", "hang"])
def test_a_poisoned_prompt_is_refused_and_others_go_on(serve, fault):
    server, work = serve(fault, OUTSIDE), jobs(8, 150)
    expected = asyncio.run(undisturbed(server.port, work))
    poison = Job.completion([400, OUTSIDE, 500], 20)
    streams, bad = asyncio.run(beside(server, poison, work))
    for stream, tokens in zip(streams, expected, strict=True):
        assert not stream.error, server.log_text()
        assert stream.tokens == tokens
    assert bad.status == 500
    assert "fail twice" in bad.error
    assert "server_error" in bad.error
    assert server.metrics().total("restarts_total", stage="inference") == 2
    refused = re.findall(r"request ([0-9a-f]{16}) made inference fail twice: it is refused", server.log_text())
    assert len(refused) == 1
    again = asyncio.run(undisturbed(server.port, work))
    assert again == expected
    assert server.stop() == 0


def test_a_stream_that_runs_into_poison_ends_with_an_error_event(serve):
    """The token that does it is one that the model says in one answer and in no other."""
    config = load_configuration(EMULATED)
    settings, tokenizer = make_runner(config).settings, open_tokenizer(config, 32000)
    work = [Job.completion(f"{word} buffer", 60) for word in ("ring", "slot", "step", "head", "tail")]
    said = [expected_tokens(tokenizer.encode(job.body["prompt"]), 60, settings) for job in work]
    others = {token for tokens in said[1:] for token in tokens}
    at = next(i for i in range(30, 59) if said[0][i] not in others and said[0][i] not in said[0][:i])
    server = serve("segfault", said[0][at])
    streams = [Stream() for _ in work]

    async def all_of_them():
        await asyncio.gather(*(read(server.port, job, stream) for job, stream in zip(work, streams, strict=True)))

    asyncio.run(all_of_them())
    assert "fail twice" in streams[0].error
    assert len(streams[0].tokens) == at + 1  # the token itself came out; with it nothing can be computed
    assert tokenizer.decode(said[0][: at + 1]) == streams[0].text
    for stream, tokens in zip(streams[1:], said[1:], strict=True):
        assert (stream.error, stream.text) == ("", tokenizer.decode(tokens))
    assert server.stop() == 0
