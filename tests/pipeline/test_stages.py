"""The step path from request to text: scheduler, descriptors, runner, sampling, results."""

import dataclasses
import random

import pytest

from model.emulated import expected_logits, expected_tokens
from model.sampling import SamplingLimits, SamplingParams
from pipeline.wire.delta import FinishReason
from pipeline.wire.request import Accepted, Refused, Request, Started, unpack_reply
from tests.pipeline.stages import ADAPTERS, EOS, OVERLAPPED, PLAIN, VOCABULARY


def greedy(count, **options):
    return Request(SamplingParams(temperature=0), count, **options)


def expected(server, request, prompt_ids, count, adapter=0):
    return expected_tokens(prompt_ids, count, server.settings, adapter)


@pytest.mark.parametrize("ahead", [OVERLAPPED, PLAIN])
@pytest.mark.parametrize("greedy_on_device", [True, False])
def test_one_request_yields_what_the_device_says(serve, ahead, greedy_on_device):
    server = serve(ahead=ahead, greedy_on_device=greedy_on_device)
    server.submit(1, [5, 6, 7], greedy(20))
    server.run()
    assert server.tokens(1) == expected(server, 1, [5, 6, 7], 20)
    assert server.answers[1] == Accepted(1, 0, 3)
    assert server.started[1].waited_ns > 0
    last = server.told[1][-1]
    assert (last.reason, last.index, last.attempt) == (FinishReason.LENGTH, 20, 0)
    assert [delta.reason for delta in server.told[1][:-1]] == [FinishReason.NONE] * 19
    assert server.scheduler.blocks.used == 0


def test_what_became_of_a_request_is_said_before_its_first_step_can_be_seen(serve):
    """Else the front could have a token before it knows the prompt."""

    class Replies:
        """Notes which steps had been published when something was said."""

        def write_many(self, records):
            published = server.rings["steps"].snapshot().producer.index
            said.extend((type(unpack_reply(record)), published) for record in records)
            replies.write_many(records)

    server, said = serve(), []
    replies = server.preprocess._rings.replies
    server.preprocess._rings = dataclasses.replace(server.preprocess._rings, replies=Replies())
    server.submit(1, [5, 6, 7], greedy(3))
    assert server.preprocess.take_request()
    assert server.plan()
    assert said == [(Accepted, 0), (Started, 0)]


def test_a_request_that_is_announced_and_does_not_come_leaves_nothing_behind(serve):
    server = serve()
    assert server.preprocess.idle
    server.preprocess.expect_request()
    assert server.preprocess.idle
    assert not server.listen()
    assert (server.scheduler.blocks.used, server.scheduler.blocks.cached) == (0, 0)
    server.submit(1, [5, 6, 7], greedy(20))
    assert not server.preprocess.idle
    server.preprocess.expect_request()  # it is there already, and not waited for
    server.run()
    assert server.tokens(1) == expected(server, 1, [5, 6, 7], 20)


def test_sampling_prepares_for_a_request_that_finds_nobody_before_its_step_is_computed(serve):
    server = serve()
    for request in (1, 2):
        server.submit(request, [5, 6, 7], greedy(20))
        assert server.preprocess.take_request()
        assert server.plan()
        server.preprocess.wake_sampling()
        server.sampling.await_request()
        assert len(server.row_table) == 1
        assert server.inference.steps_done == server.sampling.steps_done
        server.run()
        assert server.tokens(request) == expected(server, request, [5, 6, 7], 20)
        assert len(server.row_table) == 0


@pytest.mark.parametrize("ahead", [OVERLAPPED, PLAIN])
@pytest.mark.parametrize("blocks", [64, 20])
@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize("emit_eos", [True, False])
def test_a_crowd_that_comes_and_goes(serve, ahead, blocks, prefix_cache, emit_eos):
    """Mixed lengths, split prompts, shared prefixes, adapters, and with 20 blocks preemption: every text as if
    alone."""
    server = serve(rows=5, budget=12, blocks=blocks, ahead=ahead, prefix_cache=prefix_cache, emit_eos=emit_eos)
    rng = random.Random(7)
    wanted = {}
    for request in range(1, 31):
        prompt = [1, 2, 3, 4, 5, 6, 7, 8][: rng.randrange(9)] + [
            rng.randrange(200) for _ in range(rng.randrange(1, 20))
        ]
        count = rng.randrange(1, 30)
        adapter = rng.randrange(3)
        wanted[request] = expected(server, request, prompt, count, adapter)
        server.submit(request, prompt, greedy(count, adapter=("", *ADAPTERS)[adapter]))
        for _ in range(rng.randrange(6)):
            server.turn()
    server.run()
    for request, tokens in wanted.items():
        assert server.tokens(request) == tokens, f"request {request}"
        ended = FinishReason.EOS if tokens[-1] == EOS else FinishReason.LENGTH
        assert server.told[request][-1].reason is ended
    assert server.scheduler.blocks.used == 0
    assert not len(server.row_table)
    if blocks == 20:
        assert server.scheduler.stats.preemptions > 0


def test_only_prompts_with_the_same_adapter_share_blocks(serve):
    server, prompt = serve(), [7] * 20
    for request, adapter in enumerate(("first", "second", "", "second", "first", ""), 1):
        server.submit(request, prompt, greedy(4, adapter=adapter))
        server.run()
    assert [server.started[request].cached_tokens for request in range(1, 7)] == [0, 0, 0, 16, 16, 16]
    texts = [server.tokens(request) for request in range(1, 7)]
    assert texts[:3] == [expected(server, 0, prompt, 4, adapter) for adapter in (1, 2, 0)]
    assert texts[3:] == [texts[1], texts[0], texts[2]]


def test_an_adapter_that_is_not_there(serve):
    server = serve()
    server.submit(1, [5, 6, 7], greedy(4, adapter="third"))
    server.run()
    assert (server.answers[1].status, server.answers[1].parameter) == (404, "model")


def sampled(seed, count=15):
    return Request(SamplingParams(temperature=1.0, top_k=50, top_p=0.95, seed=seed), count)


@pytest.mark.parametrize("ahead", [OVERLAPPED, PLAIN])
def test_a_seed_gives_the_same_text_alone_and_in_company(serve, ahead):
    alone = serve()
    alone.submit(1, [9, 8, 7], sampled(123))
    alone.run()
    company = serve(blocks=24, ahead=ahead)
    for request in range(1, 9):
        company.submit(
            request, [9, 8, 7] if request == 5 else [request] * 7, sampled(123 if request == 5 else request)
        )
    company.run()
    assert company.tokens(5) == alone.tokens(1)


@pytest.mark.parametrize("greedy_on_device", [True, False])
def test_greedy_and_sampled_rows_join_and_leave(serve, greedy_on_device):
    """Inference foresees the tokens of greedy steps and waits for those of others; neither disturbs the other."""
    server = serve(rows=4, blocks=40, greedy_on_device=greedy_on_device)
    rng = random.Random(3)
    alone = {}
    for request in range(1, 25):
        prompt, count = [rng.randrange(200) for _ in range(rng.randrange(1, 12))], rng.randrange(1, 15)
        drawn = request % 3 == 0
        server.submit(request, prompt, sampled(request, count) if drawn else greedy(count))
        alone[request] = (prompt, count, drawn)
        for _ in range(rng.randrange(8)):
            server.turn()
    server.run()
    other = serve()
    for request, (prompt, count, drawn) in alone.items():
        if drawn:
            other.submit(request, prompt, sampled(request, count))
            other.run()
        wanted = other.tokens(request) if drawn else expected(server, request, prompt, count)
        assert server.tokens(request) == wanted, f"request {request}"
    assert server.rings["tokens"].snapshot().producer.index < server.sampling.steps_done  # some were foreseen
    assert server.rings["tokens"].snapshot().occupancy(0) <= 1


def test_text_stops_at_a_stop_string_and_nothing_follows(serve):
    server = serve()
    server.submit(1, "hello", greedy(60))
    server.run()
    text = server.text(1)
    stop = text[10:14]
    cut = text.index(stop)
    server.submit(2, "hello", greedy(60, stop=(stop,)))
    server.submit(3, "hello", greedy(60, stop=(stop,), include_stop=True))
    server.run()
    assert server.text(2) == text[:cut]
    assert server.text(3) == text[: cut + len(stop)]
    for request in (2, 3):
        assert server.told[request][-1].reason is FinishReason.STOP
    assert server.scheduler.blocks.used == 0


def test_a_stop_token_ends_without_its_text(serve):
    server = serve()
    server.submit(1, [5, 5], greedy(30))
    server.run()
    stop = server.tokens(1)[12]
    first = server.tokens(1).index(stop)
    params = Request(SamplingParams(temperature=0, stop_token_ids=(stop,)), 30)
    server.submit(2, [5, 5], params)
    server.run()
    assert server.tokens(2) == server.tokens(1)[: first + 1]
    assert (server.told[2][-1].reason, server.told[2][-1].text) == (FinishReason.STOP, "")


def test_eos_is_ignored_on_request(serve):
    server = serve(emit_eos=True)
    server.submit(1, [5, 5], greedy(100))
    server.submit(2, [5, 5], greedy(100, ignore_eos=True))
    server.run()
    assert server.tokens(1)[-1] == EOS
    assert len(server.tokens(2)) == 100


def test_log_probabilities_come_with_their_rivals(serve):
    server = serve()
    server.submit(1, [5], Request(SamplingParams(temperature=0, logprobs=3), 4))
    server.submit(2, [5], greedy(4))
    server.run()
    assert server.tokens(1) == server.tokens(2)
    for delta in server.told[1]:
        assert delta.top[0] == (delta.token_id, delta.logprob)
        assert len(delta.top) == 3
        assert delta.logprob <= 0
    assert all(delta.logprob != delta.logprob for delta in server.told[2])  # NaN


def test_cancelled_requests_free_everything_and_disturb_nobody(serve):
    server = serve(rows=3, blocks=40)
    for request in range(1, 8):
        server.submit(request, [request] * 5, greedy(30))
    for _ in range(12):
        server.turn()
    for request in (1, 3, 7):
        server.cancel(request)
    server.cancel(99)
    server.run()
    for request in (2, 4, 5, 6):
        assert server.tokens(request) == expected(server, request, [request] * 5, 30)
    assert server.scheduler.blocks.used == 0
    assert not len(server.row_table)
    told = {request: len(deltas) for request, deltas in server.told.items()}
    assert told.get(1, 0) < 30
    assert 7 not in told


@pytest.mark.parametrize(
    ("prompt", "count", "parameter", "message"),
    [
        ([], 5, "prompt", "no tokens"),
        ("", 5, "prompt", "no tokens"),
        ([1] * 128, 1, "prompt", "has 128 tokens, of which at most 127 are allowed"),
        ([1] * 100, 29, "max_tokens", "you requested 129 tokens (100 in the prompt, 29 in the completion)"),
    ],
)
def test_what_can_not_be_served_is_refused_with_a_reason(serve, prompt, count, parameter, message):
    server = serve()
    server.submit(1, prompt, greedy(count))
    server.run()
    refusal = server.answers[1]
    assert isinstance(refusal, Refused)
    assert (refusal.status, refusal.parameter) == (400, parameter)
    assert message in refusal.message
    assert not server.told


def test_a_limit_that_nobody_named_is_cut_to_what_fits(serve):
    server = serve()
    server.submit(1, [1] * 120, greedy(300, open_ended=True))
    server.submit(2, [1] * 120, greedy(300))
    server.run()
    assert len(server.tokens(1)) == 8
    assert server.told[1][-1].reason is FinishReason.LENGTH
    assert isinstance(server.answers[2], Refused)


def test_the_raw_logit_takes_the_place_of_the_log_probability(serve):
    server = serve()
    params = Request(SamplingParams(temperature=0, logprobs=0), 6, raw_logit=True)
    server.submit(1, [4, 5], params)
    server.submit(2, [4, 5], Request(SamplingParams(temperature=0, logprobs=0), 6))
    server.run()
    assert server.tokens(1) == server.tokens(2)
    sequence = [4, 5]
    for raw, true in zip(server.told[1], server.told[2], strict=True):
        logits = expected_logits(sequence, server.settings)
        assert raw.logprob == logits[raw.token_id]
        assert true.logprob <= 0 < raw.logprob
        sequence.append(raw.token_id)


def test_as_many_stop_tokens_as_a_request_may_have_beside_the_models_own(serve):
    """What the front lets through must not be too much for sampling, to which preprocess sends more."""
    server = serve(rows=2)
    most = SamplingLimits(VOCABULARY, 100).max_biased_tokens
    stops = SamplingParams(temperature=0.0, stop_token_ids=(5,) * most, min_tokens=3)
    biases = SamplingParams(temperature=0.0, logit_bias={7: 1.0}, stop_token_ids=(5,) * (most - 1))
    server.submit(1, [4], Request(stops, max_tokens=5))
    server.submit(2, [4], Request(biases, max_tokens=5))
    server.run()
    assert len(server.tokens(1)) >= 3
    assert server.tokens(2)


def test_a_full_queue_refuses_with_429(serve):
    server = serve(rows=1, max_queue=2)
    for request in range(1, 6):
        server.submit(request, [request], greedy(3))
    for _ in range(5):
        server.preprocess.take_request()
    server.preprocess.send_replies()
    server.listen()
    assert [type(server.answers[request]) for request in range(1, 6)] == [
        Accepted,
        Accepted,
        Refused,
        Refused,
        Refused,
    ]
    assert server.answers[3].status == 429
    server.run()
    assert len(server.tokens(2)) == 3
