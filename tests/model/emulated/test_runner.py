"""The emulated device against its reference: right inputs give the expected text, wrong ones another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.emulated import CostModel, EmulatedRunner, expected_logits, expected_next_token, expected_tokens
from model.errors import ModelError
from model.runner import Best, Bucket, StepInputs
from model.sampling import SampleOutputs, Sampler, SamplingLimits, SamplingParams
from tests.examples import examples

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]


def generate(driver, prompt, count, name="a"):
    tokens, output = prompt, []
    for _ in range(count):
        output.append(int(driver.step({name: tokens})[0].argmax()))
        tokens = output[-1:]
    return output


def test_greedy_text_is_the_expected_one(driver, settings):
    assert generate(driver(settings()), PROMPT, 30) == expected_tokens(PROMPT, 30, settings())


def test_each_adapter_gives_another_text(driver, settings):
    """In one batch, and as it is expected of each. What it computed is no prefix of another's."""
    chosen, prompt = settings(adapters=2), PROMPT[:8]
    d = driver(chosen)
    d.adapters = {"second": 2, "first": 1, "switched": 1}
    texts = {name: list(prompt) for name in ("first", "none", "second")}
    chunks = dict(texts)
    for _ in range(9):
        logits = d.step(chunks)
        for row, name in enumerate(chunks):
            np.testing.assert_array_equal(logits[row], expected_logits(texts[name], chosen, d.adapters.get(name, 0)))
            texts[name].append(int(logits[row].argmax()))
        chunks = {name: text[-1:] for name, text in texts.items()}
    assert texts["second"][len(prompt) :] == expected_tokens(prompt, 9, chosen, adapter=2)
    assert texts["none"][len(prompt) :] == expected_tokens(prompt, 9, settings())
    assert len({tuple(text) for text in texts.values()}) == 3
    d.step({"switched": prompt[:-1]})
    d.adapters["switched"] = 2
    assert int(d.step({"switched": prompt[-1:]})[0].argmax()) != expected_next_token(prompt, chosen, 2)


def test_expected_text_is_a_fixed_one(settings):
    """Changes only on purpose: recorded texts of servers depend on it."""
    assert expected_tokens(PROMPT, 6, settings()) == EXPECTED
    assert expected_next_token([*PROMPT, *EXPECTED[:3]], settings()) == EXPECTED[3]


EXPECTED = [216, 317, 274, 190, 39, 305]


@pytest.mark.parametrize("emit_eos", [False, True])
def test_whole_logits_rows_are_as_in_the_reference_whatever_the_array_held(driver, settings, emit_eos):
    chosen = settings(emit_eos=emit_eos, eos_probability=0.5, token_range=(1, 40), eos_token_id=7)
    d = driver(chosen)
    sequence = list(PROMPT)
    logits = d.step({"a": sequence})
    for _ in range(12):
        np.testing.assert_array_equal(logits[0], expected_logits(sequence, chosen))
        sequence.append(int(logits[0].argmax()))
        logits = d.step({"a": sequence[-1:]})


@examples(40)
@given(st.data())
def test_any_schedule_gives_every_sequence_its_own_text(driver, settings, data):
    """Rows join and leave, prompts are split, sequences are preempted and recomputed, padding varies."""
    d = driver(settings(), seed=data.draw(st.integers(0, 99)))
    sequences: dict[str, list[int]] = {}
    waiting: dict[str, list[int]] = {}
    for step in range(16):
        chunks = {}
        if len(sequences) < 4 and data.draw(st.booleans()):
            name = f"s{step}"
            sequences[name] = data.draw(st.lists(st.integers(0, 499), min_size=1, max_size=20))
            waiting[name] = list(sequences[name])
        if waiting and data.draw(st.integers(0, 5)) == 0:
            name = data.draw(st.sampled_from(sorted(waiting)))
            if name in d.lengths:
                d.release(name)
                waiting[name] = list(sequences[name])
        for name in list(sequences):
            chunk = waiting[name][: data.draw(st.integers(0, 7))]
            if chunk and len(sequences[name]) < 40:
                chunks[name] = chunk
                waiting[name] = waiting[name][len(chunk) :]
        if not chunks:
            continue
        logits = d.step(chunks, bucket=data.draw(st.sampled_from([Bucket(32, 4), None])))
        for name, row in zip(chunks, logits, strict=True):
            if not waiting[name]:
                token = int(row.argmax())
                assert token == expected_next_token(sequences[name], d.settings)
                sequences[name].append(token)
                waiting[name].append(token)


def wrong_block(x):
    x.block_tables[0, 1] = (x.block_tables[0, 1] + 1) % 64


def swapped_blocks(x):
    x.block_tables[0, [0, 1]] = x.block_tables[0, [1, 0]]


def wrong_slot(x):
    x.slot_mapping[0] = (x.slot_mapping[0] + 1) % 256


def skipped_slot(x):
    x.slot_mapping[0] = -1


def wrong_position(x):
    x.positions[0] += 1


def short_context(x):
    x.valid_length[0] -= 1


def wrong_token(x):
    x.input_ids[0] += 1


def wrong_sample(x):
    x.sample_index[0] = 1


FAULTS = [wrong_block, swapped_blocks, wrong_slot, skipped_slot, wrong_position, short_context, wrong_token]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_descriptor_gives_another_text(driver, settings, fault):
    d = driver(settings())
    d.step({"a": PROMPT})
    wrong = d.step({"a": [7]}, spoil=fault)[0]
    assert int(wrong.argmax()) != expected_next_token([*PROMPT, 7], settings())


def test_a_wrong_sample_index_gives_another_text(driver, settings):
    right, wrong = driver(settings()), driver(settings())
    chunk = {"a": PROMPT[:4]}
    bucket = Bucket(16, 4)
    assert not np.array_equal(right.step(chunk, bucket=bucket), wrong.step(chunk, spoil=wrong_sample, bucket=bucket))


def test_a_block_that_another_sequence_overwrites_changes_the_text(driver, settings):
    d = driver(settings())
    d.step({"a": PROMPT})
    d.tables["thief"] = [d.tables["a"][0]]
    d.step({"thief": [8, 8]})
    assert int(d.step({"a": [7]})[0].argmax()) != expected_next_token([*PROMPT, 7], settings())


@pytest.mark.parametrize("token_range", [None, (1, 12)], ids=["any token", "few tokens"])
def test_what_is_best_is_that_of_the_logits_and_of_the_sampler_to_the_bit(driver, settings, token_range):
    """Of few tokens, runners-up are often the same one, or the best, and candidates are not enough."""
    chosen = settings(emit_eos=True, eos_probability=0.4, token_range=token_range)
    d = driver(chosen)
    for step in range(20):
        logits = d.step({"a": [step] if step else PROMPT, "b": [step + 1]})
        n, targets = len(logits), np.array([step, 499 - step], np.int32)
        best = Best(np.zeros((n, 20), np.int32), np.zeros((n, 20), np.float32), np.zeros(n), np.zeros(n, np.float32))
        d.runner.fetch_best(best, targets)
        alone = np.zeros((n, 1), np.int32)
        d.runner.fetch_best(Best(alone))
        order = np.argsort(-logits, axis=1, kind="stable")[:, :20]
        out = sampled(logits, 20)
        np.testing.assert_array_equal(best.ids, order)
        np.testing.assert_array_equal(best.ids, out.top_ids)
        np.testing.assert_array_equal(alone[:, 0], out.token_ids)
        np.testing.assert_array_equal(best.logits, np.take_along_axis(logits, order, 1))
        np.testing.assert_array_equal(best.target_logit, logits[np.arange(n), targets])
        logprobs = (best.logits[:, 0].astype(np.float64) - best.log_sum_exp).astype(np.float32)
        np.testing.assert_array_equal(logprobs, out.logprobs)


def sampled(logits, top=0):
    """What the sampler finds in these rows."""
    (n, vocab), out = logits.shape, SampleOutputs.allocate(len(logits), top)
    sampler = Sampler(SamplingLimits(vocab, 1), 1)
    sampler.admit(0, SamplingParams(temperature=0.0, logprobs=top), [])
    sampler.sample(logits, np.zeros(n, np.int32), np.zeros(n, np.int32), out)
    return out


@examples(60)
@given(st.integers(1, 700), st.data())
def test_log_sum_exp_of_any_vocabulary_is_the_samplers(settings, vocab, data):
    """Whatever is left over behind whole chunks and vectors, and wherever a spike stands."""
    low = data.draw(st.integers(0, vocab - 1))
    high = data.draw(st.integers(low + 1, vocab))
    eos = data.draw(st.sampled_from([-1, *({low, high - 1, 0, vocab - 1} if high - low > 1 else ())]))
    emits = {"eos_token_id": eos, "emit_eos": eos >= 0, "eos_probability": 0.5}
    runner = EmulatedRunner(settings(vocab_size=vocab, token_range=(low, high), **emits))
    runner.load()
    x = one_token(data.draw(st.integers(0, vocab - 1)), runner.facts.block_table_width)
    logits, k = np.zeros((1, vocab), np.float32), runner.facts.candidates
    runner.step(runner.bind(x), logits)
    best = Best(np.zeros((1, k), np.int32), np.zeros((1, k), np.float32), np.zeros(1))
    runner.fetch_best(best)
    assert np.float32(np.float64(best.logits[0, 0]) - best.log_sum_exp[0]) == sampled(logits).logprobs[0]
    assert best.ids[0].tolist() == np.argsort(-logits[0], kind="stable")[:k].tolist()


def one_token(token, width):
    zero, one = np.zeros(1, np.int32), np.ones(1, np.int32)
    table = np.zeros((1, width), np.int32)
    return StepInputs(np.array([token], np.int32), zero, zero, one, one, zero, zero, table)


@examples(30)
@given(st.data())
def test_any_positions_of_a_step_are_as_in_the_reference(driver, settings, data):
    """Several of a row, in any order and more than once, and of a row that has earlier context."""
    d, bucket = driver(settings(buckets=(Bucket(4, 4), Bucket(16, 4, 6)))), Bucket(16, 4, 6)
    d.step({"a": PROMPT[:3]}, bucket=Bucket(4, 4))
    chunks, known = {"b": [8, 9], "a": PROMPT[3:], "c": [7]}, {"b": [8, 9], "a": PROMPT, "c": [7]}
    contexts = [
        known[name][: len(known[name]) - len(new) + i] for name, new in chunks.items() for i in range(1, len(new) + 1)
    ]
    chosen = data.draw(st.lists(st.integers(0, len(contexts) - 1), max_size=6))

    d.launch(chunks, chosen, bucket=bucket)
    rows = np.array(data.draw(st.permutations(range(len(chosen)))), np.int32)
    for row, found in zip(rows, d.fetch(rows), strict=True):
        np.testing.assert_array_equal(found, expected_logits(contexts[chosen[row]], d.settings))


def test_only_what_was_launched_can_be_fetched(driver, settings):
    d = driver(settings())
    binding = d.runner.bind(d.inputs({"a": PROMPT}, Bucket(16, 4)))
    rows, logits = np.zeros(1, np.int32), np.zeros((1, 500), np.float32)
    d.runner.launch(binding)
    with pytest.raises(ModelError, match=r"fetch\(\) or abandon\(\) it before the next launch\(\)"):
        d.runner.launch(binding)
    for _ in range(2):
        d.runner.fetch(rows, logits)
        assert logits[0].argmax() == expected_next_token(PROMPT, settings())
    d.runner.abandon()
    with pytest.raises(ModelError, match=r"call launch\(\) before fetch\(\)"):
        d.runner.fetch_best(Best(np.zeros((4, 1), np.int32)))


def test_eos_never_or_as_often_as_configured(settings):
    never = [expected_tokens([i], 30, settings()) for i in range(60)]
    assert all(len(text) == 30 and 2 not in text for text in never)
    often = [expected_tokens([i], 30, settings(emit_eos=True, eos_probability=0.1)) for i in range(200)]
    lengths = np.array([len(text) for text in often])
    assert all(text[-1] == 2 or len(text) == 30 for text in often)
    assert all(2 not in text[:-1] for text in often)
    assert 7 < lengths.mean() < 12  # 10 (1 - 0.9^30) = 9.6


def test_no_temperature_reaches_tokens_out_of_the_range(settings):
    chosen = settings(token_range=(100, 200), eos_token_id=150)
    logits = expected_logits(PROMPT, chosen).astype(np.float64) / 1000.0
    p = np.exp(logits - logits.max())
    assert p[:100].sum() == p[200:].sum() == p[150] == 0
    assert np.count_nonzero(p) == 99


def test_one_cost_for_each_kind_of_work():
    cost = CostModel(fixed_ms=10, per_token_ms=1, per_row_ms=0.1, per_cached_token_ms=0.01)
    assert cost.step_ms(tokens=5, rows=2, cached_tokens=7) == pytest.approx(15.27)


class Clock:
    """Stands still, but for the waiting, which it notes down."""

    def __init__(self, monkeypatch):
        self.now_ns, self.waits_ms = 0, []
        monkeypatch.setattr("model.emulated.runner.time.monotonic_ns", lambda: self.now_ns)
        monkeypatch.setattr("model.emulated.runner._device.wait_until", self.wait_until)

    def wait_until(self, deadline_ns, spin_ns):
        self.waits_ms.append(max(deadline_ns - self.now_ns, 0) / 1e6)
        self.now_ns = max(deadline_ns, self.now_ns)


def waits(monkeypatch, driver, settings, cost, steps):
    """How long each step and its logits took, in ms."""
    clock, d = Clock(monkeypatch), driver(settings(cost=cost))
    for chunks in steps:
        d.step(chunks, bucket=Bucket(16, 4))
    return clock.waits_ms


def test_a_step_costs_what_it_really_holds_from_the_moment_it_was_called(monkeypatch, driver, settings):
    cost = CostModel(fixed_ms=10, per_token_ms=1, per_row_ms=0.1, per_cached_token_ms=0.01)
    steps = [{"a": PROMPT}, {"a": [1], "b": [1, 2, 3]}, {"a": [1], "b": [1]}]
    found = waits(monkeypatch, driver, settings, cost, steps)
    assert found == pytest.approx([21.1, 14.31, 12.35])


def test_what_is_brought_to_the_host_costs_each_time(monkeypatch, driver, settings):
    """The step's own time is waited for once, and what is asked for late takes its time from then on."""
    clock = Clock(monkeypatch)
    d = driver(settings(cost=CostModel(fixed_ms=10, per_logits_row_ms=0.5, per_candidate_ms=0.25)))
    binding, rows, n = d.runner.bind(d.inputs({"a": PROMPT}, Bucket(16, 4))), np.arange(3, dtype=np.int32), 2
    d.runner.launch(binding)
    clock.now_ns += 4_000_000
    d.runner.fetch_best(Best(np.zeros((n, 1), np.int32), np.zeros((n, 1), np.float32), np.zeros(n)))
    d.runner.fetch(rows, np.zeros((3, 500), np.float32))
    clock.now_ns += 4_000_000
    d.runner.fetch_best(Best(np.zeros((n, 5), np.int32)))
    d.runner.fetch(rows[:0], np.zeros((0, 500), np.float32))
    assert clock.waits_ms == pytest.approx([6, 1.5, 2, 0])


def test_jitter_is_seeded(monkeypatch, driver, settings):
    steps = [{"a": [1]}] * 30
    first, second, other = (
        waits(monkeypatch, driver, settings, CostModel(10, jitter_ms=1.0, jitter_seed=seed), steps)
        for seed in (1, 1, 2)
    )
    assert first == second != other
    assert 0.4 < np.std(first) < 2


def test_a_step_never_returns_before_its_time(driver, settings):
    import time

    d = driver(settings(cost=CostModel(fixed_ms=5.0), spin_us=1000))  # it sleeps 4 ms and spins the fifth
    for _ in range(5):
        start = time.monotonic()
        d.step({"a": [1]})
        assert time.monotonic() - start >= 0.005


def test_it_says_that_it_is_emulated(settings):
    facts = EmulatedRunner(settings(name="Llama")).facts
    assert facts.name == "emulated Llama"
    assert facts.device == "emulated"
    assert facts.block_table_width == 12


def test_lifecycle(driver, settings):
    seen = []
    runner = EmulatedRunner(settings())
    d = driver(settings())
    x = d.inputs({"a": [1]}, Bucket(1, 1))
    with pytest.raises(ModelError, match=r"emulated device is not loaded: call load\(\)"):
        runner.step(runner.bind(x), np.zeros((1, 500), np.float32))
    runner.load(lambda *progress: seen.append(progress))
    runner.warm_up(lambda *progress: seen.append(progress))
    assert [progress[1:] for progress in seen] == [(1, 1), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert all("emulated" in progress[0] for progress in seen)
    runner.step(runner.bind(x), np.zeros((1, 500), np.float32))
    runner.close()
    runner.close()


def test_a_device_that_brings_logits_only_says_so(driver, settings):
    d = driver(settings(greedy_on_device=False))
    assert (d.runner.facts.candidates, d.runner.facts.scores) == (0, False)
    d.step({"a": [1]})
    with pytest.raises(NotImplementedError, match="emulated device brings logits only"):
        d.runner.fetch_best(Best(np.zeros((1, 1), np.int32)))


def set_to(name, at, value):
    def spoil(x):
        getattr(x, name)[at] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (set_to("block_tables", (0, 0), 64), r"row 0: block_tables\[0\] is 64, expected 0 to 63"),
        (set_to("block_tables", (0, 0), -1), r"row 0: block_tables\[0\] is -1"),
        (set_to("slot_mapping", 0, 256), r"slot_mapping\[0\] is 256, expected -1 to 255"),
        (set_to("slot_mapping", 0, -2), r"slot_mapping\[0\] is -2"),
        (set_to("positions", 0, 4000), r"row 0: position 3999 is outside a block table of 12 blocks of 4"),
        (set_to("positions", 0, -1), "row 0: position -2"),
        (set_to("valid_length", 0, 13), r"row 0: block_tables\[3\] is 1000000"),
        (set_to("valid_length", 0, 0), "row 0: q_seq_lens 1 and valid_length 0 do not fit 1 tokens"),
        (set_to("q_seq_lens", 0, 2), "row 0: q_seq_lens 2"),
        (set_to("q_seq_lens", 0, -1), "row 0: q_seq_lens -1"),
        (set_to("sample_index", 0, 1), r"sample_index\[0\] is 1, expected 0 to 0"),
        (set_to("sample_index", 0, -1), r"sample_index\[0\] is -1"),
        (set_to("adapter", 0, 1), r"adapter\[0\] is 1, but no adapter is loaded"),
        (set_to("adapter", 0, -1), r"adapter\[0\] is -1, but no adapter is loaded"),
    ],
)
def test_inputs_that_would_leave_the_cache_are_refused(driver, settings, spoil, message):
    d = driver(settings())
    d.step({"a": PROMPT})

    with pytest.raises(ValueError, match=message):
        d.step({"a": [7]}, spoil=spoil, bucket=Bucket(1, 1))


def test_wrong_arrays_are_refused_and_named(driver, settings):
    d = driver(settings())
    x = d.inputs({"a": [1]}, Bucket(4, 4))
    replace = type(x)
    columns = {name: getattr(x, name) for name in x.__slots__}
    for name, column in columns.items():
        for bad in (column.astype(np.int64), column[:-1], np.stack([column, column], axis=-1)[..., 0]):
            with pytest.raises(ValueError, match=f"{name} must be|no bucket of"):
                d.runner.bind(replace(**{**columns, name: bad}))
    d.runner.launch(d.runner.bind(x))
    with pytest.raises(ValueError, match=r"logits must be .* shape \(4, 500\), but is float32 of shape \(4, 499\)"):
        d.runner.fetch(np.zeros(4, np.int32), np.zeros((4, 499), np.float32))
    with pytest.raises(ValueError, match=r"rows\[1\] is 4, expected 0 to 3"):
        d.runner.fetch(np.array([3, 4], np.int32), np.zeros((2, 500), np.float32))
    for ids, message in (
        (np.zeros((5, 1), np.int32), r"rows\[4\] is 4, expected 0 to 3"),
        (np.zeros((4, 1), np.float32), "ids must have 2 axes of items of format i"),
    ):
        with pytest.raises(ValueError, match=message):
            d.runner.fetch_best(Best(ids))
