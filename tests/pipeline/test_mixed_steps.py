"""Rows with different needs in one step: what the device says, what it brings to the host, and who waits for whom."""

import functools
import math

import pytest

from model.emulated import expected_logits, expected_tokens
from model.sampling import SamplingParams
from pipeline.wire.request import Request
from pipeline.wire.step import Choice, Head
from tests.pipeline.stages import Server


class Watched(Server):
    """Remembers how many positions of each step had their logits brought to the host, and what else was asked."""

    def wire(self):
        super().wire()
        self.brought, self.asked = [], []
        runner = self.inference.runner
        fetch, fetch_best = runner.fetch, runner.fetch_best
        runner.fetch = lambda rows, logits: self.brought.append(len(rows)) or fetch(rows, logits)
        runner.fetch_best = lambda best, targets=None: self.asked.append(best) or fetch_best(best, targets)


@pytest.fixture
def serve(serve):
    return functools.partial(serve, Watched)


def params(count, **options):
    raw = options.pop("raw_logit", False)
    return Request(SamplingParams(**{"temperature": 0.0, **options}), count, raw_logit=raw)


def test_one_row_that_needs_logits_does_not_make_the_others_send_theirs(serve):
    server = serve(rows=4, budget=32)
    for request in (1, 2, 3):
        server.submit(request, [4, request], params(20))
    server.submit(4, [4, 4], params(20, temperature=1.0, seed=5))
    server.run()
    assert set(server.brought) == {1}
    assert len(server.brought) == 20  # one for each token of request 4
    for request in (1, 2, 3):
        assert server.tokens(request) == expected_tokens([4, request], 20, server.settings)
    alone = serve()
    alone.submit(4, [4, 4], params(20, temperature=1.0, seed=5))
    alone.run()
    assert server.tokens(4) == alone.tokens(4)


def test_steps_of_greedy_rows_bring_no_logits_and_the_argmax_alone(serve):
    server = serve()
    server.submit(1, [4, 4], params(5))
    server.run()
    assert server.brought == []
    assert len(server.asked) >= 5
    assert all(best.logits is None and best.log_sum_exp is None for best in server.asked)
    assert {best.ids.shape[1] for best in server.asked} == {1}


def test_inference_waits_only_where_sampling_must_choose(serve):
    """A step's descriptor says why; a row that is not sampled in that step is no reason."""
    server, seen = serve(rows=2, budget=8), []
    publish = server.sampling._publish_tokens

    def watch(views, held):
        seen.append(views.head[Head.CHOSEN_BY_SAMPLING])
        publish(views, held)

    server.sampling._publish_tokens = watch
    server.submit(1, [4, 4], params(30))
    server.submit(2, [5] * 40, params(3, temperature=1.0, seed=1, presence_penalty=1.0))  # its prompt takes six steps
    server.run()
    assert seen == [Choice.DRAWN | Choice.EDITED] * 3
    assert server.tokens(1) == expected_tokens([4, 4], 30, server.settings)


def said(server, *requests):
    return [[(delta.logprob, delta.top) for delta in server.told[request]] for request in requests]


def test_log_probabilities_are_the_same_from_the_device_and_from_the_logits(serve):
    """To the last bit: an answer does not depend on who is in the batch beside it."""
    device, host, mixed, one = serve(), serve(greedy_on_device=False), serve(), serve()
    for server in (device, host, mixed):
        for request, logprobs in ((1, 0), (2, 5), (3, None)):
            server.submit(request, [4, 4, request], params(12, logprobs=logprobs))
    mixed.submit(4, [9], params(12, temperature=1.0, seed=3, logprobs=20))
    for server in (device, host, mixed):
        server.run()
    assert device.brought == []
    assert set(mixed.brought) == {1}
    assert sum(host.brought) >= 36
    assert said(device, 1, 2) == said(host, 1, 2) == said(mixed, 1, 2)
    assert {len(top) for _, top in said(device, 2)[0]} == {5}
    one.submit(2, [4, 4, 2], params(12, logprobs=1))
    one.run()
    assert [(logprob, top) for logprob, top in said(one, 2)[0]] == [
        (logprob, top[:1]) for logprob, top in said(device, 2)[0]
    ]
    assert all(math.isnan(logprob) for logprob, _ in said(device, 3)[0])
    assert device.asked[1].ids.shape[1] == 5


def test_raw_logits_come_from_the_device_too(serve):
    device, host = serve(), serve(greedy_on_device=False)
    for server in (device, host):
        server.submit(1, [4, 4, 1], params(12, logprobs=0, raw_logit=True))
        server.run()
    assert device.brought == []
    context = [4, 4, 1, *device.tokens(1)]
    rows = [expected_logits(context[: 3 + i], device.settings) for i in range(12)]
    assert [logprob for logprob, _ in said(device, 1)[0]] == [row.max() for row in rows]
    assert said(device, 1) == said(host, 1)


def test_more_rows_than_there_is_room_for_logits_wait_for_it(serve):
    """And those that need none take their turn in order."""
    server = serve(rows=4, budget=16, logit_rows=1)
    for request in (1, 2, 3):
        server.submit(request, [4, request], params(10, temperature=1.0, seed=request))
    server.submit(4, [4, 4], params(10))
    server.run()
    assert set(server.brought) == {1}
    wide = serve(rows=4, budget=16)
    for request in (1, 2, 3):
        wide.submit(request, [4, request], params(10, temperature=1.0, seed=request))
    wide.submit(4, [4, 4], params(10))
    wide.run()
    assert [server.tokens(request) for request in (1, 2, 3, 4)] == [wide.tokens(request) for request in (1, 2, 3, 4)]


@pytest.mark.parametrize("greedy_on_device", [True, False])
def test_a_row_without_finite_logits_fails_alone(serve, greedy_on_device):
    server = serve(rows=2, greedy_on_device=greedy_on_device)
    runner, steps = server.inference.runner, []
    fetch, fetch_best = runner.fetch, runner.fetch_best

    def spoil(rows, logits):
        fetch(rows, logits)
        steps.append(1)
        if len(steps) == 4:
            logits[0, 3] = math.nan

    def spoil_best(best, targets=None):
        fetch_best(best, targets)
        steps.append(1)
        if len(steps) == 4:
            best.ids[0] = -1

    runner.fetch, runner.fetch_best = spoil, spoil_best
    server.submit(1, [4, 1], params(9))
    server.submit(2, [4, 2], params(9))
    server.run()
    failed, served = sorted((1, 2), key=lambda request: len(server.tokens(request)))
    assert server.tokens(failed)[-1] == -1
    assert "finite" in server.told[failed][-1].text
    assert server.tokens(served) == expected_tokens([4, served], 9, server.settings)
    assert server.scheduler.blocks.used == 0
