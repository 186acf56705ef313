"""Buckets that are compiled between steps: which one, when, and what others see of it."""

import logging
import random

import pytest

from model.emulated import CostModel, EmulatedRunner, EmulatedSettings, expected_tokens
from model.errors import ModelError
from model.layout import make_buckets, padding
from model.runner import Bucket
from model.sampling import SamplingParams
from pipeline.inference import compilation
from pipeline.inference.compilation import REST, Compilation
from pipeline.stats import Counters, InferenceCounter, StatsPage, StatsReader
from pipeline.wire.request import Request
from tests.pipeline.stages import Server, write_byte_tokenizer

BUCKETS = make_buckets(8, 64, 2)  # 1, 2, 4, 8 rows; 16, 32, 64 tokens
COMPILE_S = 0.001


@pytest.fixture
def page():
    page = StatsPage.create()
    page.unlink()
    yield page
    page.close()


@pytest.fixture
def runner():
    settings = EmulatedSettings(
        cost=CostModel(fixed_ms=0.0), vocab_size=300, max_length=64, num_blocks=64, block_size=4, buckets=BUCKETS,
        compile_s=COMPILE_S,
    )  # fmt: skip
    runner = EmulatedRunner(settings)
    runner.load()
    return runner


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(compilation.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def begun(runner, page):
    it = Compilation(runner, Counters(page, "inference"))
    it.begin(lambda *_: None, early=True)
    return it


def sizes(buckets):
    return [(bucket.tokens, bucket.rows) for bucket in buckets]


def test_early_begins_with_two_and_all_with_all(runner, page):
    seen, counters = [], Counters(page, "inference")
    early = Compilation(runner, counters)
    early.begin(lambda *event: seen.append(event[1:]), early=True)
    assert (sizes(early.ready), len(early.remaining)) == ([(1, 1), (8, 8)], 5)
    assert seen == [(1, 2), (2, 2)]
    assert StatsReader(page).compiled() == (2, 7)
    assert StatsReader(page).step_limits(0)[:3] == (8, 8, 8)
    assert counters.get(InferenceCounter.REHEARSAL_NS) > 0
    everything = Compilation(runner, counters)
    everything.begin(lambda *_: None, early=False)
    assert (everything.ready, everything.remaining) == (BUCKETS, [])
    assert StatsReader(page).step_limits(0)[:3] == (64, 8, 8)


def test_what_is_not_compiled_is_no_bucket_to_bind(runner, begun):
    with pytest.raises(ModelError, match="the bucket of 16x8 is not compiled"):
        runner.bind(padding(Bucket(16, 8), runner.facts))
    begun.compile_next()
    runner.bind(padding(Bucket(16, 8), runner.facts))


def test_where_nothing_needs_to_be_compiled_all_is_ready_at_once(page):
    settings = EmulatedSettings(
        cost=CostModel(fixed_ms=0.0), vocab_size=300, max_length=64, num_blocks=64, block_size=4, buckets=BUCKETS
    )
    runner = EmulatedRunner(settings)
    runner.load()
    it = Compilation(runner, Counters(page, "inference"))
    it.begin(lambda *_: None, early=True)
    assert it.remaining == []


def test_the_one_that_was_missed_most_else_the_one_that_is_worth_most(begun, page):
    for steps, shape in ((2, (4, 4, 4)), (3, (2, 2, 2)), (9, (1, 1, 1)), (9, (8, 8, 8))):
        for _ in range(steps):
            begun.note(*shape, prompts=False)
    assert StatsReader(page).counters(InferenceCounter)["uncompiled_steps"] == 5
    begun.compile_next()
    assert sizes(begun.ready) == [(1, 1), (2, 2), (8, 8)]
    while begun.remaining:
        begun.compile_next()
    assert begun.ready == BUCKETS
    assert StatsReader(page).compiled() == (7, 7)
    assert StatsReader(page).step_limits(0)[:3] == (64, 8, 8)


def test_prompts_that_were_cut_miss_the_next_larger_bucket(begun):
    begun.note(8, 8, 8, prompts=False)
    begun.note(2, 2, 2, prompts=False)
    for _ in range(2):
        begun.note(8, 3, 1, prompts=True)
    begun.compile_next()
    assert sizes(begun.ready) == [(1, 1), (8, 8), (16, 8)]


def test_under_load_it_is_due_when_missed_and_after_a_rest(runner, page, clock):
    it = Compilation(runner, Counters(page, "inference"))
    work = runner.compile

    def slowly(bucket):
        work(bucket)
        clock[0] += 3.0

    runner.compile = slowly
    it.begin(lambda *_: None, early=True)
    clock[0] += 1000
    assert not it.is_due
    it.note(4, 4, 4, prompts=False)
    assert it.is_due
    it.compile_next()
    clock[0] += 1000
    assert not it.is_due
    it.note(2, 2, 2, prompts=False)
    assert it.is_due
    it.compile_next()
    it.note(16, 4, 4, prompts=True)
    clock[0] += 3.0 * REST - 1
    assert not it.is_due
    clock[0] += 2
    assert it.is_due


def test_others_see_that_it_compiles(runner, begun, page):
    seen, work = [], runner.compile

    def compiling(bucket):
        seen.append(StatsReader(page).is_compiling("inference"))
        work(bucket)

    runner.compile = compiling
    begun.compile_next()
    assert (seen, StatsReader(page).is_compiling("inference")) == ([True], False)


def test_a_bucket_that_cannot_be_compiled_is_left_out(runner, begun, page, caplog):
    def broken(bucket):
        raise RuntimeError("no such kernel")

    runner.compile, work = broken, runner.compile
    with caplog.at_level(logging.INFO, "ringserve.inference"):
        begun.compile_next()
    assert "the bucket 16x8 can't be compiled: steps are padded to others" in caplog.text
    assert "no such kernel" in caplog.text
    runner.compile = work
    while begun.remaining:
        begun.compile_next()
    assert Bucket(16, 8) not in begun.ready
    assert begun.left_out == [Bucket(16, 8)]
    before = StatsReader(page).counters(InferenceCounter)["uncompiled_steps"]
    begun.note(16, 8, 8, prompts=True)
    begun.note(8, 8, 8, prompts=False)
    assert StatsReader(page).counters(InferenceCounter)["uncompiled_steps"] == before + 1
    assert StatsReader(page).compiled() == (6, 7)
    assert not StatsReader(page).is_compiling("inference")


def test_a_process_that_died_has_nothing_compiled(begun, page):
    page.reset("inference")
    assert (StatsReader(page).compiled(), StatsReader(page).step_limits(0)) == ((0, 0), (0, 0, 0, False))


# ---- the step path ------------------------------------------------------------------------------------------------


class Compiling(Server):
    """Steps and compilations as inference does them."""

    def __init__(self, *args, page, draw, **more):
        self.page, self.draw, self.seen = page, draw, []
        super().__init__(*args, compile_s=COMPILE_S, **more)

    def expected(self, prompt, count):
        return expected_tokens(self.tokenizer.encode(prompt), count, self.settings)

    def begin_compilation(self, runner):
        self.compilation = it = Compilation(runner, Counters(self.page, "inference"))
        it.begin(lambda *_: None, early=True)
        return it

    def compute(self):
        if not self.compilation.remaining or self.inference.steps_done >= self.preprocess.steps_planned:
            return super().compute()
        if self.inference.steps_done > self.sampling.steps_done:
            return False
        self.compilation._ended = 1e9 if self.draw.random() < 0.8 else -1e9  # whether it has rested is up to chance
        self.seen.append(len(self.compilation.ready))
        self.inference.step_or_compile(self.compilation)
        return True


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("greedy", [True, False])
def test_texts_are_the_same_whatever_is_compiled_when(tmp_path, page, seed, greedy):
    draw = random.Random(seed)
    server = Compiling(
        write_byte_tokenizer(tmp_path), page=page, draw=draw, rows=8, budget=64, greedy_on_device=greedy
    )
    asked = {}
    for request in range(1, 13):
        prompt = "".join(draw.choices("abcdef ", k=draw.randint(1, 60)))
        asked[request] = prompt, draw.randint(1, 30)
        server.submit(request, prompt, Request(SamplingParams(temperature=0), asked[request][1]))
        for _ in range(draw.randint(0, 12)):
            server.turn()
    server.run()
    for request, (prompt, count) in asked.items():
        assert server.tokens(request) == server.expected(prompt, count)
    assert min(server.seen) == 2
    assert max(server.seen) > 3
    assert server.scheduler._budget == server.compilation.ready[-1].tokens
    server.close()


def test_without_steps_all_is_compiled_one_after_the_other(tmp_path, page, monkeypatch):
    monkeypatch.setattr("pipeline.inference.step_executor.IDLE_S", 0.0)
    server = Compiling(write_byte_tokenizer(tmp_path), page=page, draw=random.Random(0), rows=8, budget=64)
    left = [len(server.compilation.remaining)]
    while server.compilation.remaining:
        server.inference.step_or_compile(server.compilation)
        left.append(len(server.compilation.remaining))
    assert left == [5, 4, 3, 2, 1, 0]
    server.submit(1, "a prompt", Request(SamplingParams(temperature=0), 5))
    server.run()
    assert server.tokens(1) == server.expected("a prompt", 5)
    server.close()


def test_steps_are_no_larger_than_what_is_compiled(tmp_path, page):
    server = Compiling(write_byte_tokenizer(tmp_path), page=page, draw=random.Random(0), rows=8, budget=64)
    server.submit(1, "a" * 60, Request(SamplingParams(temperature=0), 1))
    server.preprocess.take_request()
    assert server.preprocess.plan_step()
    assert server.preprocess._step_views[0].head.tolist()[3] == 8  # tokens of the chunk
    server.run()
    assert server.tokens(1) == server.expected("a" * 60, 1)
    server.close()


def test_prompts_are_scored_with_what_is_compiled(tmp_path, page, monkeypatch):
    """A step of many scored positions has a bucket of its own, the last one."""
    monkeypatch.setattr("pipeline.inference.step_executor.IDLE_S", 0.0)
    server = Compiling(
        write_byte_tokenizer(tmp_path), page=page, draw=random.Random(0), rows=8, budget=64, samples=32
    )
    scored, seen = Request(SamplingParams(temperature=0), 2, prompt_logprobs=1), []
    for request, left in ((1, 1), (2, 0)):
        while len(server.compilation.remaining) > left:
            server.inference.step_or_compile(server.compilation)
        server.submit(request, "ab" * 30, scored)
        steps = server.inference.steps_done
        server.run()
        seen.append(server.inference.steps_done - steps)
    assert seen[0] >= 8  # of as many positions as there are rows
    assert seen[1] <= 5
    assert len(server.scores[1]) == 59
    assert server.scores[1] == server.scores[2]
    server.close()


@pytest.mark.parametrize("deterministic", [True, False])
def test_whether_the_promise_of_the_facts_holds_here_is_known_to_all(runner, page, monkeypatch, deterministic):
    monkeypatch.setattr(EmulatedRunner, "deterministic", deterministic)
    Compilation(runner, Counters(page, "inference")).begin(lambda *_: None, early=True)
    assert StatsReader(page).is_deterministic(0) is deterministic
