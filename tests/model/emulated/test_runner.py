"""The emulated device against its reference: right inputs give the expected text, wrong ones another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from model.emulated import CostModel, EmulatedRunner, expected_logits, expected_next_token, expected_tokens
from model.errors import ModelError
from model.runner import Bucket

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]


def generate(driver, prompt, count, name="a"):
    tokens, output = prompt, []
    for _ in range(count):
        output.append(int(driver.step({name: tokens})[0].argmax()))
        tokens = output[-1:]
    return output


def test_greedy_text_is_the_expected_one(driver, settings):
    assert generate(driver(settings()), PROMPT, 30) == expected_tokens(PROMPT, 30, settings())


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


@hypothesis_settings(max_examples=40, deadline=None)
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
                d.preempt(name)
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


def wrong_gather(x):
    x.gather_index[0] = 1


FAULTS = [wrong_block, swapped_blocks, wrong_slot, skipped_slot, wrong_position, short_context, wrong_token]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_descriptor_gives_another_text(driver, settings, fault):
    d = driver(settings())
    d.step({"a": PROMPT})
    wrong = d.step({"a": [7]}, spoil=fault)[0]
    assert int(wrong.argmax()) != expected_next_token([*PROMPT, 7], settings())


def test_a_wrong_gather_index_gives_another_text(driver, settings):
    right, wrong = driver(settings()), driver(settings())
    chunk = {"a": PROMPT[:4]}
    bucket = Bucket(16, 4)
    assert not np.array_equal(right.step(chunk, bucket=bucket), wrong.step(chunk, spoil=wrong_gather, bucket=bucket))


def test_a_block_that_another_sequence_overwrites_changes_the_text(driver, settings):
    d = driver(settings())
    d.step({"a": PROMPT})
    d.tables["thief"] = [d.tables["a"][0]]
    d.step({"thief": [8, 8]})
    assert int(d.step({"a": [7]})[0].argmax()) != expected_next_token([*PROMPT, 7], settings())


@pytest.mark.parametrize("token_range", [None, (1, 12)], ids=["any token", "few tokens"])
def test_step_greedy_gives_the_argmax_and_its_log_probability(driver, settings, token_range):
    """Of few tokens, runners-up are often the same one, or the best."""
    chosen = settings(emit_eos=True, eos_probability=0.4, token_range=token_range)
    with_logits, greedy = driver(chosen), driver(chosen)
    for step in range(20):
        chunks = {"a": [step] if step else PROMPT, "b": [step + 1]}
        logits = with_logits.step(chunks, bucket=Bucket(16, 4)).astype(np.float64)
        tokens, logprobs = np.full(4, -7, np.int32), np.full(4, -7, np.float32)
        binding = greedy.runner.bind(greedy.inputs(chunks, Bucket(16, 4)))
        greedy.runner.step_greedy(binding, tokens, logprobs if step % 2 else None)
        assert tokens.tolist() == [*logits.argmax(axis=1), -7, -7]
        expected = logits.max(axis=1) - np.logaddexp.reduce(logits, axis=1)
        np.testing.assert_allclose(logprobs, [*expected, -7, -7] if step % 2 else [-7] * 4, rtol=1e-6, atol=1e-7)


def test_only_what_was_launched_can_be_fetched_and_once(driver, settings):
    d = driver(settings())
    binding, logits = d.runner.bind(d.inputs({"a": PROMPT}, Bucket(16, 4))), np.zeros((4, 500), np.float32)
    d.runner.launch(binding)
    d.runner.fetch(logits)
    assert logits[0].argmax() == expected_next_token(PROMPT, settings())
    with pytest.raises(ModelError, match=r"call launch\(\) before fetch\(\)"):
        d.runner.fetch_best(np.zeros(4, np.int32))


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


def waits(monkeypatch, driver, settings, cost, steps):
    """Cost of each step in ms, by the deadlines it waited for."""
    found, clock = [], iter(range(10**9, 10**15, 10**9))
    monkeypatch.setattr("model.emulated.runner.time.monotonic_ns", lambda: next(clock))
    monkeypatch.setattr(
        "model.emulated.runner._device.wait_until",
        lambda deadline, spin: found.append((deadline % 10**9) / 1e6),
    )
    d = driver(settings(cost=cost))
    for chunks in steps:
        d.step(chunks, bucket=Bucket(16, 4))
    return found


def test_a_step_costs_what_it_really_holds_from_the_moment_it_was_called(monkeypatch, driver, settings):
    cost = CostModel(fixed_ms=10, per_token_ms=1, per_row_ms=0.1, per_cached_token_ms=0.01)
    steps = [{"a": PROMPT}, {"a": [1], "b": [1, 2, 3]}, {"a": [1], "b": [1]}]
    found = waits(monkeypatch, driver, settings, cost, steps)
    assert found == pytest.approx([21.1, 14.31, 12.35])


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


def test_a_runner_without_a_greedy_path_says_so(driver, settings):
    d = driver(settings(greedy_on_device=False))
    assert not d.runner.facts.greedy_on_device
    with pytest.raises(NotImplementedError, match="no greedy path"):
        d.runner.step_greedy(d.runner.bind(d.inputs({"a": [1]}, Bucket(1, 1))), np.zeros(1, np.int32))


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
        (set_to("valid_length", 0, 0), "row 0: q_seq_lens 1, valid_length 0"),
        (set_to("q_seq_lens", 0, 2), "row 0: q_seq_lens 2"),
        (set_to("q_seq_lens", 0, -1), "row 0: q_seq_lens -1"),
        (set_to("gather_index", 0, 1), "gather_index 1 do not fit 1 tokens"),
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
            with pytest.raises(ValueError, match=f"{name}|expected contiguous|none of the buckets"):
                d.runner.bind(replace(**{**columns, name: bad}))
    with pytest.raises(ValueError, match=r"logits have shape \[4, 499\], expected \[4, 500\]"):
        d.runner.step(d.runner.bind(x), np.zeros((4, 499), np.float32))
    with pytest.raises(ValueError, match="token_ids has 3 rows, expected 4"):
        d.runner.step_greedy(d.runner.bind(x), np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="logprobs has 3 rows, expected 4"):
        d.runner.step_greedy(d.runner.bind(x), np.zeros(4, np.int32), np.zeros(3, np.float32))
