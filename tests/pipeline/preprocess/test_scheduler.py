"""The scheduler against a simulated device that remembers what every KV slot holds.

The device checks what a real one could not: that each row reads, through its block table, exactly the tokens of its
own sequence, whatever was preempted, shared, split or evicted before.
"""

from collections import deque
from hashlib import blake2b
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.runner import Bucket
from pipeline.inference.step_arrays import Outcome, StepInputArrays, make_board
from pipeline.preprocess import blocks
from pipeline.preprocess.blocks import BlockManager
from pipeline.preprocess.scheduler import Scheduler
from pipeline.preprocess.sequence import Sequence, Wants
from pipeline.wire.request import NOBODY, Owner
from pipeline.wire.step import Head, Shapes, logits_layout, step_layout
from tests.examples import examples

EOS = 1
SLOTS = 4


def next_token(tokens):
    """The model: any function of the whole context will do."""
    value = 7
    for token in tokens:
        value = (value * 31 + int(token) + 1) % 1009
    return EOS if value % 23 == 0 else 2 + value


def expected(prompt, limit):
    tokens = list(prompt)
    while len(tokens) < limit:
        tokens.append(next_token(tokens))
        if tokens[-1] == EOS:
            break
    return tokens


class Device:
    """KV memory by slot, and steps that run in order, later than they were planned; tokens come and go through
    inference's own board and arrays."""

    def __init__(self, num_blocks, block_size, shapes):
        buckets = tuple(Bucket(t, r) for t in (1, 2, 4, 8, 16, 32, 64) for r in (1, 2, 4, 8, 16) if r <= t)
        self.facts = SimpleNamespace(block_size=block_size, buckets=buckets)
        self.block_size, self.shapes = block_size, shapes
        self.memory = {}
        self.prompts = {}  # lengths, by row and epoch
        self.board = make_board(shapes)
        layout = logits_layout(shapes)
        self.outcome = Outcome(layout.views(bytearray(layout.size)))

    def run(self, views):
        """What its sampled positions yield: row, epoch, token, context."""
        arrays = StepInputArrays(views, self.board, self.shapes, self.facts.block_size, self.facts.buckets)
        bucket = arrays.filled.fill()
        live, samples = arrays.filled.tokens, arrays.filled.samples
        step = arrays.inputs(self.facts.buckets[bucket])
        used = step.slot_mapping[:live]
        assert len(set(used.tolist())) == live, "two tokens share a KV slot"
        assert (step.slot_mapping[live:] == -1).all()
        self.check_kinds(step, views)
        for t in range(live):
            self.memory[int(used[t])] = (int(step.positions[t]), int(step.input_ids[t]))
        assert arrays.filled.describe(self.outcome.columns) == 0  # all rows are greedy
        ends = np.cumsum(step.q_seq_lens)
        for s in range(samples):
            b = int(np.searchsorted(ends, step.sample_index[s], side="right"))
            assert step.sample_index[s] == ends[b] - 1
            context = self.context(step, b)
            assert self.outcome.views.lengths[s] == len(context)
            self.outcome.views.ids[s] = next_token(context)
            yield int(views.rows[b]), int(views.epochs[b]), int(self.outcome.views.ids[s]), context
        self.board.foresee(self.outcome.columns, samples, 1)

    def check_kinds(self, step, views):
        """The new tokens of a row are of its prompt, or sampled ones: never both, and it says which."""
        for b in range(int(views.head[Head.ROWS])):
            prompt = self.prompts[int(views.rows[b]), int(views.epochs[b])]
            end = int(step.valid_length[b])
            first = end - int(step.q_seq_lens[b])
            assert step.sampled[b] == (first >= prompt)
            assert first >= prompt or end <= prompt

    def context(self, step, b):
        context = []
        for position in range(int(step.valid_length[b])):
            block = int(step.block_tables[b, position // self.block_size])
            held, token = self.memory[block * self.block_size + position % self.block_size]
            assert held == position, "a row reads another sequence's memory"
            context.append(token)
        return context


class World:
    def __init__(self, *, blocks, block_size, rows, budget, ahead, prefix_cache=True, **more):
        self.manager = BlockManager(blocks, block_size, prefix_cache=prefix_cache)
        width = blocks
        self.scheduler = Scheduler(
            self.manager, max_rows=rows, token_budget=budget, block_table_width=width, ring_slots=SLOTS, **more
        )
        self.shapes = Shapes(token_budget=64, max_rows=16, block_table_width=width, vocab_size=1)
        self.layout = step_layout(self.shapes)
        self.slots = [bytearray(b"\xb3" * self.layout.size) for _ in range(SLOTS)]  # whatever was there before
        self.views = [self.layout.views(slot) for slot in self.slots]
        self.device = Device(blocks, block_size, self.shapes)
        self.ahead = ahead
        self.pending = deque()
        self.sent = 0
        self.done = {}
        self.sequences = {}

    def submit(self, request, prompt, new, owner=NOBODY, **more):
        limit = len(prompt) + new
        tokens = np.zeros(limit, np.int32)
        tokens[: len(prompt)] = prompt
        about = {"known": len(prompt), "arrival_ns": request, "owner": owner, **more}
        sequence = Sequence(request, tokens, len(prompt), limit, **about)
        if limit > (self.scheduler.blocks.num_blocks - 1) * self.scheduler.blocks.block_size:
            return False
        self.sequences[request] = sequence
        self.scheduler.submit(sequence)
        return True

    def plan(self):
        """Plan a step if the pipeline has room; the device runs it at once or when its turn comes."""
        if len(self.pending) >= self.ahead:
            return False
        slot = self.sent % SLOTS
        plan = self.scheduler.plan()
        if plan is None:
            return False
        self.sent += 1
        self.device.prompts |= {(one.row, one.epoch): one.prompt for one in self.scheduler.admissions}
        plan.write(self.views[slot], slot, self.sent, self.manager.block_size)
        self.scheduler.commit(plan)
        self.pending.append(self.layout.views(bytes(self.slots[slot])))
        return True

    def finish_step(self):
        if not self.pending:
            return False
        for row, epoch, token, context in list(self.device.run(self.pending.popleft())):
            sequence = self.scheduler._by_row_epoch.get((row, epoch))
            over = False
            if sequence is not None and not sequence.finished:
                over = token == EOS or len(context) + 1 == sequence.limit
            self.scheduler.on_tokens(row, epoch, [token], finished=over)
            if over:
                self.done[sequence.request] = sequence.tokens[: sequence.known].tolist()
        return True

    def drain(self):
        for _ in range(100_000):
            if not (self.plan() or self.finish_step()):
                break
        else:
            raise AssertionError("never came to an end")
        assert not self.scheduler.waiting
        assert self.scheduler.running == 0
        assert self.manager.used == 0
        assert not self.scheduler._by_row_epoch


def serve(world, requests):
    """Prompts, new tokens, steps before the next one, and perhaps whose each is: all texts must be right."""
    accepted = {}
    for number, (prompt, new, pause, *owner) in enumerate(requests):
        if world.submit(number, prompt, new, *owner):
            accepted[number] = (prompt, new)
        for _ in range(pause):
            world.plan()
            if number % 2:
                world.finish_step()
    world.drain()
    check(world, accepted)


def check(world, requests):
    for request, (prompt, new) in requests.items():
        assert world.done[request] == expected(prompt, len(prompt) + new), f"request {request}"


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_one_sequence(ahead):
    world = World(blocks=32, block_size=4, rows=4, budget=8, ahead=ahead)
    world.submit(1, [5, 6, 7, 8, 9, 10, 11, 12, 13, 14], 20)
    world.drain()
    check(world, {1: ([5, 6, 7, 8, 9, 10, 11, 12, 13, 14], 20)})


def test_a_prompt_that_waits_for_blocks_is_not_read_again_in_every_step(monkeypatch):
    """It may have a hundred thousand tokens, and whoever streams meanwhile would wait for that."""
    world = World(blocks=64, block_size=4, rows=4, budget=8, ahead=1)
    long, named, matched = [3] * 200, [], []
    monkeypatch.setattr(blocks, "blake2b", lambda *args, **kwargs: named.append(1) or blake2b(*args, **kwargs))
    monkeypatch.setattr(
        world.manager, "match", lambda *args: matched.append(1) or BlockManager.match(world.manager, *args)
    )
    lasting = [prompt for i in range(2, 99) if len(expected(prompt := [i] * 30, 80)) == 80]
    world.submit(1, lasting[0], 50)
    world.submit(2, lasting[1], 50)
    for _ in range(12):
        world.plan()
        world.finish_step()
    world.submit(3, long, 20)
    steps = 0
    while world.scheduler.waiting and not world.done:
        world.plan()
        world.finish_step()
        steps += 1
    assert steps > 10
    assert len(matched) == 3  # one for each sequence
    assert len(named) <= (len(long) + 80 + 80) // 4
    world.drain()
    check(world, {1: (lasting[0], 50), 2: (lasting[1], 50), 3: (long, 20)})


prompts = st.lists(st.integers(2, 4), min_size=1, max_size=20)  # few tokens, so that prefixes are shared
requests = st.lists(st.tuples(prompts, st.integers(1, 25), st.integers(0, 3)), min_size=1, max_size=14)


@examples(300)
@given(
    requests,
    st.integers(12, 40),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 8),
    st.integers(8, 32),
    st.sampled_from([1, 2, 3]),
    st.booleans(),
)
def test_every_text_is_right_whatever_happens(requests, blocks, block_size, rows, budget, ahead, prefix_cache):
    world = World(
        blocks=blocks, block_size=block_size, rows=rows, budget=budget, ahead=ahead, prefix_cache=prefix_cache
    )
    serve(world, requests)


owners = st.builds(Owner, st.integers(1, 3), st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([0, 0, 0, 1]))


@examples(100)
@given(
    st.lists(st.tuples(prompts, st.integers(1, 25), st.integers(0, 3), owners), min_size=1, max_size=14),
    st.integers(12, 30),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 6),
    st.integers(4, 16),
    st.sampled_from([1, 2, 3]),
)
def test_every_text_is_right_whoever_gives_up_rows(requests, blocks, block_size, rows, budget, ahead):
    world = World(blocks=blocks, block_size=block_size, rows=rows, budget=max(rows + 1, budget), ahead=ahead)
    serve(world, requests)
    assert not world.scheduler.waiting._live


def test_a_newcomer_of_another_key_gets_a_row_at_once_and_no_text_suffers():
    world = World(blocks=64, block_size=4, rows=4, budget=32, ahead=1)
    lasting = [prompt for i in range(2, 99) if len(expected(prompt := [i] * 3, 40)) == 40]
    greedy = {number: (lasting[number], 37) for number in range(6)}
    for number, (prompt, new) in greedy.items():
        world.submit(number, prompt, new, Owner(1))
    for _ in range(5):
        world.plan()
        world.finish_step()
    for number in (6, 7, 8):
        world.submit(number, lasting[number], 37, Owner(2))
    for rows in (1, 2, 2):  # one row a step, up to the half
        world.plan()
        world.finish_step()
        assert sum(world.sequences[number].row >= 0 for number in (6, 7, 8)) == rows
    assert [world.sequences[number].preemptions for number in range(6)] == [0, 0, 1, 1, 0, 0]
    world.drain()
    check(world, greedy | {number: (lasting[number], 37) for number in (6, 7, 8)})


def test_prompts_that_nobody_waits_for_take_a_part_of_a_step_where_somebody_waits():
    world, behind = World(blocks=256, block_size=4, rows=16, budget=64, ahead=1), Owner().in_background(0.25)
    texts = {number: ([3 + number] * 30, 4) for number in range(12)}
    for number in range(11):
        world.submit(number, *texts[number], behind)

    def computed():
        return sum(world.sequences[number].computed for number in range(11))

    world.plan()
    alone = computed()
    world.submit(11, *texts[11], Owner())
    world.finish_step()
    world.plan()
    assert alone > 48
    assert world.sequences[11].computed == 30
    assert 0 < computed() - alone <= 64 // 4 + 2  # and the rows that decode
    world.drain()
    check(world, texts)


@pytest.mark.parametrize("key", [1, 2])
def test_a_key_that_lacks_blocks_gets_them_from_the_one_that_has_more(key):
    world = World(blocks=33, block_size=4, rows=8, budget=64, ahead=1)
    every = ([i % 37 + 2, i % 11 + 2, *[5] * 38] for i in range(400))
    lasting = [prompt for prompt in every if len(expected(prompt, 60)) == 60]
    texts = {number: (lasting[number], 20) for number in range(4)}
    for number in range(3):
        world.submit(number, *texts[number], Owner(1))
    for _ in range(8):
        world.plan()
        world.finish_step()
    before = [world.sequences[number].row >= 0 for number in range(3)]
    assert before == [True, True, False]
    world.submit(3, *texts[3], Owner(key))
    for _ in range(3):
        world.plan()
        world.finish_step()
    after = [world.sequences[number].row >= 0 for number in range(4)]
    assert after == ([True, True, False, False] if key == 1 else [True, False, False, True])
    world.drain()
    check(world, texts)


def test_no_row_changes_hands_for_a_newcomer_that_lacks_more_blocks_than_it_is_owed():
    world = World(blocks=41, block_size=4, rows=4, budget=60, ahead=1)
    every = ([i % 37 + 2, i % 11 + 2, *[5] * 22] for i in range(400))
    lasting = [prompt for prompt in every if len(expected(prompt, 40)) == 40]
    for number in range(4):
        world.submit(number, lasting[number], 12, Owner(1))
    for _ in range(2):
        world.plan()
        world.finish_step()
    world.submit(4, [9] * 100, 2, Owner(2))
    for _ in range(8):
        world.plan()
        world.finish_step()
    assert world.scheduler.stats.preemptions == 0
    world.drain()
    check(world, {number: (lasting[number], 12) for number in range(4)} | {4: ([9] * 100, 2)})


@pytest.mark.parametrize(("logit_rows", "changes"), [(1, 0), (0, 1)])
def test_no_row_changes_hands_for_a_newcomer_that_lacks_a_row_of_logits(logit_rows, changes):
    scheduler = Scheduler(
        BlockManager(64, 4), max_rows=2, token_budget=8, block_table_width=64, ring_slots=SLOTS, logit_rows=logit_rows
    )
    every = []
    for number, key, logits in ((0, 1, True), (1, 1, not logit_rows), (2, 1, False), (3, 2, True)):
        tokens, wants = np.full(40, 3 + number, np.int32), Wants(logits=logits)
        every.append(Sequence(number, tokens, 2, 40, known=2, arrival_ns=number, wants=wants, owner=Owner(key)))
    for step in range(4):
        for sequence in every[step * 3 : step * 3 + 3]:
            scheduler.submit(sequence)
        plan = scheduler.plan()
        rows = [(one.row, one.epoch) for one in plan.decode.sequences]
        rows += [(chunk.sequence.row, chunk.sequence.epoch) for chunk in plan.chunks]
        scheduler.commit(plan)
        for row, epoch in rows:
            scheduler.on_tokens(row, epoch, [5], finished=False)
    assert scheduler.stats.preemptions == changes


def test_a_long_prompt_of_one_key_leaves_room_for_another_ones():
    world = World(blocks=64, block_size=4, rows=4, budget=16, ahead=1)
    world.submit(1, [4] * 100, 2, Owner(1))
    world.submit(2, [5] * 6, 2, Owner(2))
    world.plan()
    assert [int(n) for n in world.pending[-1].new_tokens[:2]] == [4, 6]
    world.drain()
    check(world, {1: ([4] * 100, 2), 2: ([5] * 6, 2)})


def test_prompts_of_several_keys_fill_steps_with_a_deterministic_row():
    """A step of the one shape has few tokens, but not every prompt is a long one for that."""
    world = World(blocks=64, block_size=4, rows=8, budget=64, ahead=1, fixed_tokens=8)
    lasting = next(prompt for i in range(2, 99) if len(expected(prompt := [i] * 3, 23)) == 23)
    world.submit(1, lasting, 20, Owner(1), deterministic=True)
    world.plan()
    world.finish_step()
    world.submit(2, [5] * 12, 2, Owner(2))
    world.plan()
    assert world.pending[-1].head[Head.CHUNK_TOKENS] == 7
    world.drain()
    check(world, {1: (lasting, 20), 2: ([5] * 12, 2)})


@pytest.mark.parametrize("other", [Owner(1), Owner(2, 1.0, 1)])
def test_a_deterministic_one_behind_chunks_is_not_too_late_for_ever(other):
    world = World(blocks=128, block_size=4, rows=8, budget=16, ahead=1, fixed_tokens=8)
    world.submit(1, [4] * 200, 2, Owner(1))
    world.plan()
    world.finish_step()
    world.submit(2, [5] * 3, 2, other, deterministic=True)
    world.submit(3, [6] * 3, 2, Owner(3, 1.0, 2))
    world.plan()
    world.finish_step()
    assert [world.sequences[number].computed for number in (2, 3)] == [0, 3]  # nobody waits for it
    world.plan()
    assert world.sequences[2].computed == 3
    world.drain()
    check(world, {1: ([4] * 200, 2), 2: ([5] * 3, 2), 3: ([6] * 3, 2)})


@examples(60)
@given(
    st.lists(
        st.tuples(prompts, st.integers(1, 25), st.integers(0, 3), owners, st.booleans()), min_size=1, max_size=14
    ),
    st.integers(12, 30),
    st.integers(1, 6),
    st.sampled_from([1, 2, 3]),
)
def test_every_text_is_right_whichever_are_deterministic(requests, blocks, rows, ahead):
    world = World(blocks=blocks, block_size=2, rows=rows, budget=16, ahead=ahead, fixed_tokens=rows)
    accepted = {}
    for number, (prompt, new, pause, owner, deterministic) in enumerate(requests):
        if world.submit(number, prompt, new, owner, deterministic=deterministic):
            accepted[number] = (prompt, new)
        for _ in range(pause):
            world.plan()
            world.finish_step()
    world.drain()
    check(world, accepted)


@examples(150)
@given(requests, st.integers(12, 24), st.lists(st.integers(0, 13), max_size=6), st.sampled_from([1, 2]))
def test_cancelled_requests_leave_nothing_and_disturb_nobody(requests, blocks, cancelled, ahead):
    world = World(blocks=blocks, block_size=2, rows=3, budget=8, ahead=ahead)
    accepted = {}
    for number, (prompt, new, pause) in enumerate(requests):
        if world.submit(number, prompt, new):
            accepted[number] = (prompt, new)
        for _ in range(pause):
            world.plan()
            world.finish_step()
    for request in cancelled:
        if world.scheduler.cancel(request):
            accepted.pop(request)
        assert world.scheduler.cancel(request) is None
        world.plan()
    world.drain()
    check(world, accepted)


def test_running_out_of_blocks_preempts_the_youngest_and_loses_nothing():
    world = World(blocks=10, block_size=2, rows=4, budget=8, ahead=2)
    requests = {number: ([number + 2, 3, 4], 12) for number in range(4)}
    for number, (prompt, new) in requests.items():
        assert world.submit(number, prompt, new)
    world.drain()
    assert world.scheduler.stats.preemptions > 0
    assert world.sequences[0].preemptions == 0
    check(world, requests)


def test_a_shared_prefix_is_computed_once():
    world = World(blocks=40, block_size=4, rows=4, budget=64, ahead=2)
    prompt = list(range(2, 18))
    requests = {1: ([*prompt, 30], 3), 2: ([*prompt, 31], 3), 3: (prompt, 3)}
    for number, (tokens, new) in requests.items():
        world.submit(number, tokens, new)
        world.drain()
    check(world, requests)
    assert [world.sequences[n].cached for n in (1, 2, 3)] == [0, 16, 12]
    assert world.manager.stats.hits == 28


def test_a_long_prompt_does_not_hold_up_those_who_decode():
    world = World(blocks=64, block_size=4, rows=4, budget=8, ahead=1)
    world.submit(1, [2, 3], 30)
    world.plan()
    world.finish_step()
    world.submit(2, [4] * 60, 2)
    for _ in range(5):
        world.plan()
        step = world.pending[-1]
        assert step.head[Head.DECODE_ROWS] == 1
        assert step.head[Head.CHUNK_TOKENS] == 7
        world.finish_step()


def test_order_of_admission_is_kept():
    world = World(blocks=64, block_size=4, rows=2, budget=8, ahead=2)
    admitted = []
    for number in range(8):
        world.submit(number, [2, 3, 4], 4)
    for _ in range(1000):
        moved = world.plan() or world.finish_step()
        admitted += [sequence.request for sequence in world.scheduler.admissions]
        world.scheduler.admissions.clear()
        if not moved:
            break
    assert admitted == list(range(8))


def test_what_can_never_fit_is_told():
    world = World(blocks=5, block_size=2, rows=2, budget=8, ahead=1)
    assert world.submit(1, [2] * 4, 4)
    assert not world.submit(2, [2] * 5, 4)


def test_block_manager_refuses_nonsense():
    with pytest.raises(ValueError, match="at least 2 blocks"):
        BlockManager(1, 16)


def test_what_one_step_admits_has_room_in_the_ring_of_rows():
    """Sampling reads that ring when it has the step's logits: if the step waited for room in it, all would wait."""
    manager = BlockManager(64, 4)
    scheduler = Scheduler(
        manager, max_rows=4, token_budget=32, block_table_width=64, ring_slots=SLOTS, admission_bytes=100_000
    )
    for number, size in enumerate((300_000, 60_000, 10_000, 10_000)):
        tokens = np.full(6, 3 + number, np.int32)
        scheduler.submit(
            Sequence(number, tokens, 2, 6, known=2, arrival_ns=number, params=b"x" * size, wants=Wants())
        )
    admitted = []
    for _ in range(3):
        scheduler.commit(scheduler.plan())
        admitted.append([sequence.request for sequence in scheduler.admissions])
        scheduler.admissions.clear()
    assert admitted == [[0], [1, 2], [3]]  # one that is larger than that comes alone


def test_what_comes_from_another_replica_takes_half_of_a_step_from_those_that_decode():
    """It is passed by others, and takes whole steps where nobody decodes. Once it decodes, it is like all."""
    scheduler = Scheduler(BlockManager(200, 4), max_rows=4, token_budget=16, block_table_width=64, ring_slots=SLOTS)

    def add(request, count, *, moved=False):
        tokens = np.arange(2 + request, 102 + request, dtype=np.int32)
        scheduler.submit(
            one := Sequence(request, tokens, prompt=count, limit=100, known=count, arrival_ns=request, moved=moved)
        )
        return one

    def step():
        plan = scheduler.plan()
        planned = {chunk.sequence.request: chunk.count for chunk in plan.chunks}
        scheduler.commit(plan)
        for one in [*scheduler._columns.sequences]:
            scheduler.on_tokens(one.row, one.epoch, [5], finished=False)
        return planned

    first = add(1, 20, moved=True)
    assert [step(), step()] == [{1: 16}, {1: 4}]  # there is nobody to hold up
    assert not first.moved
    add(2, 18, moved=True)
    add(3, 30, moved=True)
    assert step() == {2: 8}
    add(4, 10)
    assert step() == {2: 8, 4: 7}
    assert step() == {2: 2, 3: 6, 4: 3}
    assert [step(), step(), step()] == [{3: 8}, {3: 8}, {3: 8}]
    assert step() == {}
