"""Rows whose answers have a grammar, in the stages as they are: right tokens, whatever happens meanwhile."""

from __future__ import annotations

import json
import random
import threading
import time

import jsonschema
import msgspec
import numpy as np
import pytest

from model.emulated import expected_logits, expected_tokens
from model.grammar import grammar_text
from model.sampling import SamplingParams
from pipeline.wire.delta import FinishReason
from pipeline.wire.request import Assign, Request
from tests.pipeline.stages import EOS, OVERLAPPED, PLAIN, Server

pytest.importorskip("llguidance")
DIGITS = range(15, 25)  # ids of 0 to 9: the tokenizer's bytes are in the order of their signs
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "kind": {"enum": ["a", "bb"]},
        "items": {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
    },
    "required": ["name", "kind", "items"],
    "additionalProperties": False,
}
PERSON = grammar_text("json_schema", SCHEMA)
SIX_DIGITS = grammar_text("regex", "[0-9]{6}")


def params(count, grammar="", **options):
    return Request(SamplingParams(**{"temperature": 0.0, "grammar": grammar, **options}), count)


def drawn(count, seed, **options):
    return params(count, PERSON, temperature=1.0, seed=seed, **options)


def reference(prompt, count, allowed, settings):
    """The argmax of what is allowed, computed from the whole sequence each time."""
    tokens = []
    for _ in range(count):
        logits = expected_logits([*prompt, *tokens], settings)
        tokens.append(max(allowed, key=lambda token: (logits[token], -token)))
    return tokens


def valid(text):
    jsonschema.validate(json.loads(text), SCHEMA)
    return True


def test_a_greedy_row_takes_the_best_of_what_is_allowed_and_ends_with_its_grammar(serve):
    server = serve()
    server.submit(1, [4, 4], params(50, SIX_DIGITS))
    server.run()
    assert server.tokens(1) == reference([4, 4], 6, DIGITS, server.settings)
    assert [delta.reason for delta in server.told[1]] == [FinishReason.NONE] * 5 + [FinishReason.STOP]
    assert server.text(1).isdigit()
    assert server.tokenizer.encode("0123456789") == list(DIGITS)


def test_max_tokens_cuts_an_answer_as_any_other(serve):
    server = serve()
    server.submit(1, [4, 4], params(3, SIX_DIGITS))
    server.run()
    assert server.tokens(1) == reference([4, 4], 3, DIGITS, server.settings)
    assert server.told[1][-1].reason is FinishReason.LENGTH


def test_an_end_token_is_allowed_where_the_grammar_may_end(serve):
    server = serve(emit_eos=True)
    server.submit(1, [4, 4], params(60, grammar_text("regex", "[0-9]{1,60}")))
    server.run()
    assert server.told[1][-1].reason is FinishReason.EOS
    assert server.tokens(1)[-1] == EOS
    assert server.text(1).isdigit()


def test_every_answer_is_valid_and_rows_without_a_grammar_are_not_touched(serve):
    server = serve(rows=6, budget=32)
    for request in range(1, 9):
        server.submit(request, [4, request], drawn(120, request))
    for request in (11, 12):
        server.submit(request, [4, request], params(30))
    server.run()
    for request in range(1, 9):
        assert server.told[request][-1].reason is FinishReason.STOP, server.text(request)
        assert valid(server.text(request))
    for request in (11, 12):
        assert server.tokens(request) == expected_tokens([4, request], 30, server.settings)


class Late(Server):
    """Masks and grammars that are not ready in time, at random."""

    seed = 0

    def wire(self):
        super().wire()
        chance, hold_back, make = random.Random(self.seed), self.grammars.hold_back, self.grammars.make_masks
        self.late = 0

        def unready(chosen):
            for grammar in self.grammars._rows.values():
                if grammar.ready and chance.random() < 0.5:
                    grammar.ready = False  # until it is made once more
                    self.grammars._unmasked.append(grammar)
                    self.late += 1
            return hold_back(chosen)

        self.grammars.hold_back = unready
        self.grammars.make_masks = lambda waiting: make(lambda: chance.random() < 0.9)


CASES = [drawn(120, 3), params(40, SIX_DIGITS), drawn(1, 5), drawn(23, 6, presence_penalty=1.0), params(25)]


def answers(server, restart_at=()):
    for request, case in enumerate(CASES, 1):
        server.submit(request, [4] * (3 * request) + [request], case)
    for turn in range(100_000):
        if not server.turn() and not server.pool.requests:
            break
        if turn in restart_at:
            server.restart()
    assert not server.unfinished()
    return [(server.tokens(request), server.text(request)) for request in range(1, len(CASES) + 1)]


@pytest.fixture
def alone(serve):
    """What each request is answered when nothing is beside it."""
    texts = []
    for request, case in enumerate(CASES, 1):
        server = serve(max_length=256)
        server.submit(request, [4] * (3 * request) + [request], case)
        server.run()
        texts.append((server.tokens(request), server.text(request)))
    return texts


@pytest.mark.parametrize("seed", range(12))
def test_a_row_that_sits_out_steps_gets_the_same_tokens_and_holds_up_nobody(serve, alone, seed):
    ahead, cache = (OVERLAPPED, PLAIN)[seed % 2], seed % 3 > 0
    kind = type("Late", (Late,), {"seed": seed})
    drafts = (0, 0, 5, 2)[seed % 4]
    server = serve(
        kind, rows=5, budget=24, max_length=256, blocks=200, ahead=ahead, prefix_cache=cache, drafts=drafts
    )
    assert answers(server) == alone
    assert server.late > 10
    assert (server.scheduler.blocks.used, server.scheduler.running) == (0, 0)


@pytest.mark.parametrize("seed", range(6))
def test_preempted_and_resumed_rows_go_on_as_if_nothing_had_happened(serve, alone, seed):
    kind = type("Late", (Late,), {"seed": seed}) if seed % 2 else Server
    server = serve(kind, rows=5, budget=24, max_length=256, blocks=60, drafts=(0, 3, 5)[seed % 3])
    chance = random.Random(seed)
    assert answers(server, restart_at={chance.randrange(20, 200) for _ in range(3)}) == alone


def test_a_last_token_that_comes_late_is_computed_where_it_belongs(serve):
    """A row sits out its last step, and the step behind it has prompts alone, so that it waits for no token. The row
    that comes back must not take what another one has left on the board: it would write to blocks that others share.
    """
    server = serve()
    shared = list(range(30, 38))
    server.submit(1, [9], params(1))  # it has the same row before
    server.run()
    begins, begun = server.grammars._begins, server.sampling.steps_done
    server.grammars._begins = lambda grammar: server.sampling.steps_done > begun and begins(grammar)
    server.submit(2, [*shared, 4], params(1, SIX_DIGITS))
    server.submit(3, [5] * 40, params(3))
    assert all(move() for move in [server.preprocess.take_request, server.plan] * 2)  # two steps are under way
    server.run()
    server.submit(4, [*shared, 6], params(3))
    server.run()
    assert server.started[4].cached_tokens == len(shared)
    assert server.tokens(2) == reference([*shared, 4], 1, DIGITS, server.settings)
    assert server.tokens(3) == expected_tokens([5] * 40, 3, server.settings)
    assert server.tokens(4) == expected_tokens([*shared, 6], 3, server.settings)


@pytest.mark.parametrize("seed", [0, 1, 6])
def test_short_answers_that_come_late_disturb_nobody(serve, seed):
    """Rows sit out their only step, beside prompts of many steps, while stages take their turns in any order."""
    server = serve(type("Late", (Late,), {"seed": seed}), rows=3, budget=8, blocks=80)
    chance = random.Random(seed)
    shared = [chance.randrange(30, 90) for _ in range(60)]
    prompts = [[*shared[: chance.randrange(4, 60)], request] for request in range(30)]
    left = list(enumerate(prompts))
    while left:
        if chance.random() < 0.1:
            request, prompt = left.pop(0)
            server.submit(request, prompt, params(1, SIX_DIGITS))
        chance.choice(server.moves)()
    server.run()
    for request, prompt in enumerate(prompts):
        assert server.tokens(request) == reference(prompt, 1, DIGITS, server.settings)


class Counting(Server):
    """Remembers how many tokens each step brought."""

    def wire(self):
        super().wire()
        self.brought, take = [], self.sampling._take_all
        self.sampling._take_all = lambda b, row, tokens, *more: (
            self.brought.append(len(tokens)) or take(b, row, tokens, *more)
        )


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1.0, "seed": 3}])
def test_what_must_follow_is_drafted(serve, options):
    """Names of members: the same answer in fewer steps, unless the request wants none of it."""
    seen = []
    for drafts, most in ((0, 5), (5, 5), (5, 0)):
        server = serve(Counting, max_length=256, drafts=drafts, budget=32)
        asked = params(200, PERSON, logprobs=2, **options)
        server.submit(1, [4, 4], msgspec.structs.replace(asked, most_drafts=most))
        server.run()
        assert valid(server.text(1))
        seen.append([(d.token_id, d.logprob, d.text, d.top) for d in server.told[1]])
        assert seen[-1] == seen[0]
        steps, tokens = len(server.brought), len(seen[0])
        assert steps < tokens - 6 if drafts and most else steps == tokens


def test_few_blocks_preempt_and_change_nothing(serve):
    letters = grammar_text("regex", "[a-z ]{60}")
    few = serve(Late, rows=4, budget=24, blocks=40)
    for request in range(1, 5):
        few.submit(request, [4, 4, request], params(100, letters, temperature=1.0, seed=request))
    few.run()
    assert few.scheduler.stats.preemptions > 0
    for request in range(1, 5):
        one = serve()
        one.submit(request, [4, 4, request], params(100, letters, temperature=1.0, seed=request))
        one.run()
        assert few.tokens(request) == one.tokens(request)
        assert len(few.text(request)) == 60


def test_a_grammar_without_an_allowed_token_fails_its_row_alone(serve):
    server = serve()
    server.submit(1, [4, 4], params(9, SIX_DIGITS, banned_token_ids=tuple(DIGITS)))
    server.submit(2, [4, 5], params(9))
    server.run()
    assert server.told[1][-1].reason is FinishReason.FAILED
    assert "no token that the grammar allows is left" in server.told[1][-1].text
    assert server.tokens(2) == expected_tokens([4, 5], 9, server.settings)
    assert server.scheduler.running == 0


def test_a_grammar_that_does_not_compile_fails_its_row_alone(serve):
    server = serve()
    server.submit(1, [4, 4], params(9, '{"grammars":[{"lark_grammar":"start: nothing"}]}'))
    server.submit(2, [4, 5], params(9))
    deadline = time.monotonic() + 20
    while server.unfinished():
        server.turn()
        assert time.monotonic() < deadline
    assert server.told[1][-1].reason is FinishReason.FAILED
    assert server.told[1][-1].text.startswith("the grammar failed: ")
    assert server.tokens(2) == expected_tokens([4, 5], 9, server.settings)


def test_log_probabilities_are_those_of_the_model(serve):
    plain, masked = serve(), serve()
    plain.submit(1, [4, 4], params(1, logprobs=3))
    masked.submit(1, [4, 4], params(1, SIX_DIGITS, logprobs=3))
    plain.run()
    masked.run()
    assert masked.told[1][0].top == plain.told[1][0].top
    logits = np.asarray(expected_logits([4, 4], masked.settings), np.float64)
    token = masked.tokens(1)[0]
    assert masked.told[1][0].logprob == pytest.approx(logits[token] - np.logaddexp.reduce(logits), abs=1e-4)


def test_one_compilation_serves_many(serve):
    server = serve(rows=8, budget=64)
    made = []
    for request in range(1, 9):
        server.submit(request, [4, request], drawn(60, request))
    server.run()
    made = list(server.grammars._grammars._kept)
    assert made == [PERSON]
    assert len({server.text(request) for request in range(1, 9)}) > 4


class Full(Server):
    """The first matcher of each row meets the limit of states in the middle of its answer."""

    def wire(self):
        super().wire()
        make = self.grammars._make_matcher

        def limited(text, output, fresh):
            matcher, spent = make(text, output, fresh)
            return (matcher if fresh else Limited(matcher, 5)), spent

        self.grammars._make_matcher = limited


class Limited:
    def __init__(self, matcher, left):
        self.matcher, self.left, self.error = matcher, left, matcher.error

    def take(self, token):
        self.left -= 1
        self.error = "too many states" if self.left == 0 else self.error
        return not self.error and self.matcher.take(token)

    def fill(self, mask):
        self.matcher.fill(mask)

    @property
    def stopped(self):
        return bool(self.error) or self.matcher.stopped


def test_a_row_whose_shared_states_are_full_goes_on_with_its_own(serve, alone):
    server = serve(Full, rows=5, budget=24, max_length=256, blocks=200)
    assert answers(server) == alone


def test_what_waits_to_be_compiled_is_not_when_its_row_is_gone(serve):
    grammars, go, compiled = serve().grammars, threading.Event(), []
    grammars._make_matcher = lambda text, output, fresh: (compiled.append(text), go.wait(20))
    for row in range(3):
        packed = params(9, SIX_DIGITS).pack()
        grammars.assign(Assign(row, 0, 1, row, 1, 9, None, (), packed, b"\0" * 4), f"{row}")
    grammars.vacate(1)
    go.set()
    assert grammars.of(1) is None
    grammars.of(2).compiling.result(20)
    assert compiled == ["0", "2"]


def test_an_error_of_the_library_fails_its_row_alone(serve):
    server = serve()

    def broken(text, output, fresh):
        raise RuntimeError("it broke")

    server.grammars._make_matcher = broken
    server.submit(1, [4, 4], params(9, SIX_DIGITS))
    server.submit(2, [4, 5], params(9))
    deadline = time.monotonic() + 20
    while server.unfinished():
        server.turn()
        assert time.monotonic() < deadline
    assert server.told[1][-1].text == "the grammar failed: it did not compile"
    assert server.tokens(2) == expected_tokens([4, 5], 9, server.settings)
