"""Drafts, right and wrong, in the stages as they are: tokens, texts and log-probabilities are those without."""

from __future__ import annotations

import random

import numpy as np
import pytest

from model.emulated import expected_tokens
from model.sampling import SamplingParams
from pipeline.wire.request import Request
from tests.pipeline.stages import ADAPTERS, OVERLAPPED, PLAIN, Server, answer_all

MOST = 5


class ToldDrafter:
    """In place of the one that guesses: it knows the answers, and says them, or something else, at random."""

    def __init__(self, answers, chance, right):
        self.answers, self.chance, self.right = answers, chance, right
        self.rows, self.most, self.early = {}, {}, {}
        self.drafted = self.accepted = 0

    def begin(self, row, most):
        self.rows.pop(row, None)
        self.most[row], self.early[row] = min(most, MOST), None

    def read(self, row, limit, prompt, output):
        prompt = np.frombuffer(prompt, np.int32).tolist()
        self.rows[row] = [*prompt, *np.frombuffer(output, np.int32).tolist()], self.answers[tuple(prompt)]
        if self.early[row] is not None:
            self.rows[row][0].append(self.early[row])

    def follow(self, rows, token_ids, drafts, starts, taken, counts, ids, wishes):
        run = s = 0
        while s < len(rows):
            end = s + 1
            while end < len(rows) and drafts[end - 1] >= 0:
                end += 1
            held = 1
            while held < end - s and rows[s] >= 0 and token_ids[s + held - 1] == drafts[s + held - 1]:
                held += 1
            self.drafted, self.accepted = self.drafted + end - s - 1, self.accepted + held - 1
            new = token_ids[s : s + held].tolist()
            guesses = self.guess(int(rows[s]), new) if rows[s] >= 0 and new[-1] >= 0 else []
            starts[run], taken[run], counts[run] = s, held, 1 + len(guesses)
            ids[run, : 1 + len(guesses)] = [new[-1], *guesses]
            wishes[run] = self.chance.randrange(MOST + 1) if guesses else 0
            run, s = run + 1, end
        return run, bool(wishes[:run].any())

    def guess(self, row, new):
        if not self.most[row]:
            return []
        if row not in self.rows:
            self.early[row] = new[0]
            return []
        tokens, answer = self.rows[row]
        tokens += new
        prompt = next(len(p) for p in self.answers if self.answers[p] is answer)
        guesses = answer[len(tokens) - prompt :][: self.chance.randrange(self.most[row] + 1)]
        if self.chance.random() >= self.right and guesses:
            at = self.chance.randrange(len(guesses))
            guesses = [*guesses[:at], (guesses[at] + 1) % 200, *guesses[at + 1 :]]
        return guesses


class Told(Server):
    known, right, seed = {}, 1.0, 0

    def wire(self):
        super().wire()
        self.drafter = self.verifier.drafter = ToldDrafter(self.known, random.Random(self.seed), self.right)
        self.seed += 1


def params(count, *, most_drafts=MOST, **options):
    own = {key: options.pop(key) for key in ("stop", "adapter", "raw_logit", "ignore_eos") if key in options}
    return Request(SamplingParams(**{"temperature": 0.0, **options}), count, most_drafts=most_drafts, **own)


CASES = [
    params(40),
    params(33, adapter=ADAPTERS[0]),
    params(40, temperature=1.0, seed=5, top_k=50),
    params(40, temperature=1.0, seed=6, presence_penalty=1.5, frequency_penalty=0.5, repetition_penalty=1.2),
    params(40, logprobs=3),
    params(30, temperature=0.7, seed=8, logprobs=2, logit_bias={7: 4.0}, min_tokens=9, stop_token_ids=(7,)),
    params(40, raw_logit=True),
    params(25, most_drafts=0),
    params(40, temperature=1.0, seed=9, top_p=0.9, stop=("e", "t"), min_tokens=3),
    params(1),
    params(2, temperature=1.0, seed=1),
]
PROMPTS = [
    [1, 2, 3, 4, 5, 6, 7, 8][: request % 9] + [request] * (1 + request * 3 % 7) for request in range(len(CASES))
]


def ask(server, **how):
    return answer_all(server, CASES, PROMPTS, **how)


@pytest.fixture(scope="module")
def plain(tokenizer_file):
    """What the cases are answered without drafts, with or without end tokens."""
    answers = {}
    for emit_eos in (False, True):
        server = Server(tokenizer_file, emit_eos=emit_eos)
        answers[emit_eos] = ask(server)
        server.close()
    return answers


def told_by(answers):
    return {tuple(prompt): [d[1] for d in answer] for prompt, answer in zip(PROMPTS, answers, strict=True)}


@pytest.mark.parametrize("right", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("ahead", [OVERLAPPED, PLAIN])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"emit_eos": True},
        {"greedy_on_device": False},
        {"blocks": 26},
        {"rows": 11, "budget": 64, "logit_rows": 3},
    ],
    ids=["plain", "ends", "no argmax", "preempted", "crowd"],
)
def test_the_answers_are_those_without_drafts(serve, plain, right, ahead, options):
    wanted = plain[bool(options.get("emit_eos"))]

    class Right(Told):
        known = told_by(wanted)

    Right.right = right
    server = serve(Right, ahead=ahead, drafts=MOST, **options)
    assert ask(server, chance=random.Random(4)) == wanted
    assert server.drafter.drafted > 50
    if right == 1.0:
        assert server.drafter.accepted > 0.8 * server.drafter.drafted
    if right == 0.0:
        assert server.drafter.accepted < 0.6 * server.drafter.drafted
    if "blocks" in options:
        assert server.scheduler.stats.preemptions > 0


@pytest.mark.parametrize("seed", range(4))
def test_stages_may_die_at_any_time(serve, plain, seed):
    """Their clients have some of a step's tokens, all or none."""

    class Half(Told):
        known, right = told_by(plain[False]), 0.7

        def listen(self):
            return super().listen() if chance.random() < 0.7 else True

    chance = random.Random(seed)
    server = serve(Half, drafts=MOST, blocks=30)
    restarts = []

    def upset(server):
        restarts.append(1)
        server.crash() if len(restarts) == 2 else server.restart()

    answers = ask(server, chance=chance, upset=upset)
    assert len(restarts) > 3
    texts = ["".join(d[4] for d in answer) for answer in answers]
    assert [[d[1] for d in answer] for answer in answers] == [[d[1] for d in answer] for answer in plain[False]]
    assert texts == ["".join(d[4] for d in answer) for answer in plain[False]]


def test_no_guess_gets_into_the_prefix_cache(serve, plain):
    """What comes later with an answer in its prompt reads its keys and values: blocks hold the tokens that held."""

    class Half(Told):
        known, right = told_by(plain[False]), 0.5

    server = serve(Half, drafts=MOST, blocks=200, rows=8, budget=64)
    ask(server)
    for request in (1, 4, 5):  # of which no adapter
        answer = [*PROMPTS[request - 1], *server.tokens(request)]
        server.known[tuple(answer)] = wanted = expected_tokens(answer, 20, server.settings)
        server.submit(100 + request, answer, params(20))
        server.run()
        assert server.started[100 + request].cached_tokens > len(answer) - 2 * 4
        assert server.tokens(100 + request) == wanted


def test_steps_are_foreseen_where_no_row_has_drafts(serve):
    """Texts that do not repeat: sampling publishes nothing, and inference waits for nothing."""
    server = serve(drafts=7, rows=4, budget=64)
    waited = []
    server.inference._count_wait = waited.append
    for request in range(1, 5):
        server.submit(request, list(range(10 * request, 10 * request + 9)), params(60))
    server.run()
    for request in range(1, 5):
        prompt = list(range(10 * request, 10 * request + 9))
        assert server.tokens(request) == expected_tokens(prompt, 60, server.settings)
    assert len(waited) < 0.03 * server.inference.steps_done
