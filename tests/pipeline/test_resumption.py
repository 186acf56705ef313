"""Requests that go on behind what their client has got: every token, text, number and end as if nothing had been.

All stages are lost at once, at any point of their work; what the front has heard by then is all that is left. Not
covered here: processes, and the front itself (tests/pipeline/front/, tests/scripts/verify/test_chaos.py).
"""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ModelError
from model.sampling import SamplingParams
from pipeline.runtime.generations import Ended, culprit
from pipeline.sampling import chooser
from pipeline.wire.delta import FinishReason
from pipeline.wire.request import Accepted, Refused, Request
from tests.examples import examples
from tests.pipeline.stages import ADAPTERS, OVERLAPPED, PLAIN, Server

TWO_BYTE_CHARACTERS = (106, 156)  # tokens of bytes that continue a character, and of such that begin one
FEW_BLOCKS = 20
QUICK = examples(25)


def record(server):
    """All that clients are told, whichever attempt it came from."""
    return {
        request: [msgspec.structs.replace(delta, attempt=0).pack() for delta in deltas]
        for request, deltas in server.told.items()
    }


def undisturbed(tokenizer_file, jobs, **options):
    server = Server(tokenizer_file, **options)
    for request, (prompt, params) in jobs.items():
        server.submit(request, prompt, params)
    server.run()
    server.close()
    return server


def disturbed(tokenizer_file, jobs, cuts, **options):
    """`cuts`: how many moves stages get until they are lost, and whether the front hears what they said last."""
    server = Server(tokenizer_file, **options)
    for request, (prompt, params) in jobs.items():
        server.submit(request, prompt, params)
    for moves, heard in cuts:
        for move in itertools.islice(itertools.cycle(range(6)), moves):
            server.moves[move]()
        if heard:
            server.listen()
        server.restart()
    server.run()
    for deltas in server.told.values():
        assert [delta.index for delta in deltas] == list(range(1, len(deltas) + 1))
        assert [delta.attempt for delta in deltas] == sorted(delta.attempt for delta in deltas)
    assert server.scheduler.blocks.used == 0
    assert not len(server.row_table)
    server.close()
    return server


prompts = st.lists(st.integers(0, 200), min_size=1, max_size=20)
cut_points = st.lists(st.tuples(st.integers(0, 150), st.booleans()), min_size=1, max_size=4)
device = st.fixed_dictionaries(
    {
        "rows": st.integers(1, 4),
        "blocks": st.sampled_from([FEW_BLOCKS, 64]),
        "ahead": st.sampled_from([OVERLAPPED, PLAIN]),
        "prefix_cache": st.booleans(),
        "greedy_on_device": st.booleans(),
        "emit_eos": st.booleans(),
        "token_range": st.sampled_from([None, TWO_BYTE_CHARACTERS]),
    }
)
sampling = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    top_k=st.sampled_from([0, 5, 50]),
    top_p=st.sampled_from([1.0, 0.9]),
    min_p=st.sampled_from([0.0, 0.01]),
    repetition_penalty=st.sampled_from([1.0, 1.2]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.7]),
    seed=st.integers(0, 2**63),
    logprobs=st.sampled_from([None, 0, 3]),
    min_tokens=st.sampled_from([0, 7]),
)
requests = st.builds(
    Request,
    sampling,
    max_tokens=st.integers(1, 30),
    include_stop=st.booleans(),
    ignore_eos=st.booleans(),
    raw_logit=st.just(False),
    adapter=st.sampled_from(["", *ADAPTERS]),
)
jobs = st.lists(st.tuples(prompts, requests), min_size=1, max_size=7).map(lambda drawn: dict(enumerate(drawn, 1)))


@QUICK
@given(jobs, cut_points, device)
def test_every_stream_is_as_if_nothing_had_been(tokenizer_file, jobs, cuts, options):
    """Greedy and sampled, with penalties, minimum lengths and log-probabilities, preempted or not."""
    plain = undisturbed(tokenizer_file, jobs, **options)
    assert record(disturbed(tokenizer_file, jobs, cuts, **options)) == record(plain)


def test_rows_of_which_the_sampler_learns_no_sooner_than_needed(tokenizer_file, monkeypatch):
    params = [Request(SamplingParams(seed=n, repetition_penalty=1.3), 20) for n in range(8)]
    jobs = {n: ([n, 7, 7, 9] * 8, params[n]) for n in range(1, 8)} | {8: ([8], greedy(30))}
    expected = record(undisturbed(tokenizer_file, jobs))
    monkeypatch.setattr(chooser, "AT_ONCE", 0)
    assert record(undisturbed(tokenizer_file, jobs)) == expected
    assert record(disturbed(tokenizer_file, jobs, [(40, True), (60, False)])) == expected


@QUICK
@given(st.data(), jobs, cut_points, device)
def test_stop_strings_that_lie_across_a_cut(tokenizer_file, data, jobs, cuts, options):
    """Each request stops at a piece of its own text, or holds back the beginning of it."""
    plain = undisturbed(tokenizer_file, jobs, **options)
    stopped = {}
    for request, (prompt, params) in jobs.items():
        text = plain.text(request) or "x"
        begin = data.draw(st.integers(0, len(text) - 1))
        stop = text[begin : begin + data.draw(st.integers(1, 8))]
        never = stop + "\0"
        stopped[request] = (
            prompt,
            msgspec.structs.replace(params, stop=data.draw(st.sampled_from([(stop,), (never,)]))),
        )
    expected = undisturbed(tokenizer_file, stopped, **options)
    assert record(disturbed(tokenizer_file, stopped, cuts, **options)) == record(expected)


def greedy(count, **options):
    return Request(SamplingParams(temperature=0), count, **options)


@pytest.mark.parametrize("params", [greedy(12), Request(SamplingParams(seed=5, top_k=20), 12)])
def test_a_cut_after_one_move_or_another(tokenizer_file, params):
    jobs = {1: ([5, 6, 7], params), 2: ("ring", params)}
    expected = record(undisturbed(tokenizer_file, jobs, token_range=TWO_BYTE_CHARACTERS))
    for moves in range(0, 120, 4):
        again = disturbed(tokenizer_file, jobs, [(moves, moves % 2 == 0)], token_range=TWO_BYTE_CHARACTERS)
        assert record(again) == expected, moves


def test_a_cut_after_every_token_of_a_long_text(tokenizer_file):
    jobs = {1: ([5, 6, 7], greedy(60))}
    expected = record(undisturbed(tokenizer_file, jobs))
    cuts = [(40, True)] * 50
    assert record(disturbed(tokenizer_file, jobs, cuts)) == expected


def test_how_much_was_cached_is_told_as_it_was_at_first(tokenizer_file):
    server = Server(tokenizer_file, rows=1)
    for request in (1, 2):
        server.submit(request, [7] * 20, greedy(10))
    while len(server.tokens(2)) < 5:
        server.turn()
    first = server.started[2]
    assert first.cached_tokens == 16
    server.restart()
    server.run()
    assert len(server.tokens(2)) == 10
    assert server.started[2] is first  # nothing more is said of it
    assert server.answers[2] == Accepted(2, 1, 20)
    server.close()


def test_a_request_that_was_let_in_is_not_turned_away_afterwards(tokenizer_file):
    server = Server(tokenizer_file, rows=2, max_queue=3)
    for request in range(1, 9):
        server.submit(request, [request], greedy(5))
        server.turn()  # two get a row, three a place in the queue
    refused = {request for request, answer in server.answers.items() if isinstance(answer, Refused)}
    assert refused
    server.restart()
    server.run()
    for request in set(range(1, 9)) - refused:
        assert len(server.tokens(request)) == 5
    assert all(server.answers[request].status == 429 for request in refused)
    server.close()


def test_a_request_with_nothing_left_to_compute_is_refused(tokenizer_file):
    """It can't happen; but then a client is told."""
    server = Server(tokenizer_file)
    server.submit(1, [5], greedy(3))
    server.resume(1, [1, 2, 3])
    server.run()
    assert server.answers[1].status == 500
    assert "could not be resumed" in server.answers[1].message
    server.close()


@pytest.mark.parametrize(
    ("ended", "stage"),
    [
        ([("inference", "crash", 7)], "inference"),
        ([("front", "crash", 7), ("sampling", "hung", 7)], "sampling"),
        ([("inference", "killed", 7)], None),
        ([("inference", "stopped", 7)], None),
        ([("inference", "crash", 8)], None),  # while it loaded: nobody had asked it for anything
        ([("preprocess", "crash", 7)], None),
        ([], None),
    ],
)
def test_who_is_asked_whether_requests_made_it_fail(ended, stage):
    assert culprit([Ended(*one) for one in ended], 7, "inference", "sampling") == stage


# ---- requests that make inference fail ---------------------------------------------------------------------


def run_and_crash(server, most=20):
    """To the end, inference failing by itself now and then; how often it did."""
    for crashes in range(most):
        try:
            while server.turn():
                if server.scheduler.quarantined and server.preprocess.under_way:
                    assert len(server.scheduler.aboard) <= 1
        except ModelError:
            server.listen()
            server.crash()
        else:
            return crashes
    raise AssertionError("it failed again and again")


POISON = 250


@pytest.mark.parametrize("ahead", [OVERLAPPED, PLAIN])
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_poisoned_prompt_fails_twice_and_is_refused(tokenizer_file, rows, ahead):
    jobs = {request: ([request, 9], greedy(20)) for request in range(1, 9)}
    jobs[4] = ([4, POISON, 9], greedy(20))
    options = {"rows": rows, "ahead": ahead, "token_range": (0, 200)}
    expected = record(undisturbed(tokenizer_file, jobs, **options))
    server = Server(tokenizer_file, fault="error", fault_token=POISON, **options)
    for request, (prompt, params) in jobs.items():
        server.submit(request, prompt, params)
    assert run_and_crash(server) == 2
    assert server.answers[4].status == 500
    assert "fail twice" in server.answers[4].message
    del expected[4]
    assert record(server) == expected
    assert not server.scheduler.quarantined
    server.close()


def test_several_poisons_that_come_out_of_the_model(tokenizer_file):
    """The token that does it is one that the model itself says; clients keep what they got before it."""
    jobs = {request: ([request, 9], greedy(25)) for request in range(1, 7)}
    options = {"rows": 4, "token_range": (0, 200)}
    plain = undisturbed(tokenizer_file, jobs, **options)
    said = [set(plain.tokens(request)[:-1]) for request in jobs]  # the last one is not computed with
    poison = next(token for token in range(10, 200) if 0 < sum(token in tokens for tokens in said) <= 2)
    server = Server(tokenizer_file, fault="error", fault_token=poison, **options)
    for request, (prompt, params) in jobs.items():
        server.submit(request, prompt, params)
    run_and_crash(server)
    for request, tokens in zip(jobs, said, strict=True):
        expected, got = plain.tokens(request), server.tokens(request)
        if poison in tokens:
            assert server.answers[request].status == 500
            assert got == expected[: expected.index(poison) + 1][: len(got)]
        else:
            assert got == expected
            assert isinstance(server.answers[request], Accepted)
            assert server.told[request][-1].reason is FinishReason.LENGTH
    server.close()


def test_suspects_are_cleared_one_by_one_and_then_run_together(tokenizer_file):
    """A failure that had nothing to do with requests costs a pause, and nobody is refused."""
    jobs = {request: ([request] * request, greedy(30)) for request in range(1, 6)}
    expected = record(undisturbed(tokenizer_file, jobs, rows=3))
    server = Server(tokenizer_file, rows=3)
    for request, (prompt, params) in jobs.items():
        server.submit(request, prompt, params)
    for _ in range(20):
        server.turn()
    suspects = {sequence.request for sequence in server.scheduler.aboard}
    assert len(suspects) == 3
    server.crash()
    order = []
    while True:
        server.turn()
        alone = server.scheduler.alone
        if alone is not None and order[-1:] != [alone.request]:
            order.append(alone.request)
        if order and not server.scheduler.quarantined:
            break
    assert order == sorted(suspects)
    server.run()
    assert record(server) == expected
    server.close()


def test_a_suspect_that_was_cleared_can_be_in_the_batch_of_another_failure(tokenizer_file):
    server = Server(tokenizer_file, rows=3)
    for request in (1, 2, 3):
        server.submit(request, [request], greedy(40))
    for _ in range(4):
        while len(server.scheduler.aboard) < 3 or server.scheduler.quarantined:
            server.turn()
        server.listen()
        server.crash()
    server.run()
    for request in (1, 2, 3):
        assert len(server.tokens(request)) == 40
    server.close()


def test_a_suspect_whose_client_goes_away_holds_up_nobody(tokenizer_file):
    server = Server(tokenizer_file, rows=3)
    for request in (1, 2, 3):
        server.submit(request, [request], greedy(20))
    for _ in range(20):
        server.turn()
    server.crash()
    server.cancel(1)
    for _ in range(4):
        server.turn()
    server.cancel(2)
    server.run()
    assert len(server.tokens(3)) == 20
    assert not server.scheduler.quarantined
    server.close()
