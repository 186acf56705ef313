"""What must hold of every runner, as functions of one. Those with MindSpore run in a process of their own."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest

from model.emulated import CostModel, EmulatedRunner, EmulatedSettings
from model.errors import ModelError
from model.runner import Best, Bucket, Runner, StepInputs
from model.sampling import SampleOutputs, Sampler, SamplingLimits, SamplingParams
from tests.model.adapters.folders import Lora
from tests.model.conftest import DATA
from tests.model.driver import GARBAGE_BLOCK, Driver
from tests.model.families.checkpoints import load

BUCKETS = (Bucket(4, 4), Bucket(16, 4), Bucket(16, 4, 9))
PROMPT, OTHER = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [2, 7, 1, 8, 2, 8]
POISON = 250  # a token that makes the logits behind it NaN, where that is possible
EQUAL = (range(20, 40), range(100, 240))  # tokens whose logits are the same as one another's, in every step


@dataclass(frozen=True)
class Engine:
    runner: Runner
    logits_atol: float  # between steps of another shape
    scores_atol: float  # of log-sum-exps; 0: they are the sampler's to the bit

    def driver(self, seed: int = 0) -> Driver:
        """Nothing of what earlier drivers did is under way."""
        self.runner.abandon()
        return Driver(self.runner, seed)


def emulated(adapters: int = 0) -> Engine:
    sizes = {"num_blocks": 40, "block_size": 16, "adapters": adapters}
    settings = EmulatedSettings(
        CostModel(0.0), 256, 256, buckets=BUCKETS, token_range=(1, 40), eos_token_id=7, **sizes
    )
    runner = EmulatedRunner(settings)
    runner.load()
    return Engine(runner, logits_atol=0.0, scores_atol=0.0)


def static() -> Engine:
    from tests.model.scenarios import loaded

    runner = loaded(DATA / "grouped", buckets=BUCKETS, token_budget=16)
    return Engine(prepared(runner), logits_atol=1e-4, scores_atol=0.0)


def dynamic() -> Engine:
    from tests.model.scenarios import as_on_ascend

    runner = as_on_ascend(DATA / "grouped", buckets=BUCKETS, token_budget=16)
    return Engine(prepared(runner), logits_atol=1e-4, scores_atol=1e-5)  # summed up in float32


def decoder() -> Engine:
    from tests.model.mindspore_runner.scenarios import loaded

    runner = loaded(DATA / "grouped", buckets=BUCKETS, num_blocks=40, max_rows=4, token_budget=16, max_length=256)
    return Engine(prepared(runner, "head.weight", "embed.weight"), logits_atol=1e-4, scores_atol=0.0)


def openvino() -> Engine:
    from tests.model.openvino.scenarios import loaded

    spoil = {"head.weight": _equal, "embed.weight": _poisoned}
    sizes = {"buckets": BUCKETS, "num_blocks": 20, "max_rows": 4, "token_budget": 16, "max_length": 256}
    return Engine(loaded(DATA / "grouped", spoil, **sizes), logits_atol=1e-4, scores_atol=0.0)


def adapted() -> Engine:
    """With two adapters."""
    from tests.model.mindspore_runner.scenarios import loaded

    it = load()["qwen2"]
    with tempfile.TemporaryDirectory() as directory:
        folders = tuple(Lora(it, seed, rank).save(Path(directory, str(seed))) for seed, rank in ((1, 4), (2, 9)))
        base = it.save(Path(directory, "base"))
        runner = loaded(base, buckets=BUCKETS, num_blocks=40, max_rows=4, token_budget=16, adapters=folders)
    return Engine(runner, logits_atol=1e-4, scores_atol=0.0)


def prepared(
    runner: Runner, head: str = "lm_head.weight", embedding: str = "model.tok_embeddings.embedding_weight"
) -> Runner:
    """With equal logits, of which more than one fetch of candidates are the largest now and then, and with poison."""
    from mindspore import Tensor

    parameters = {parameter.name: parameter for parameter in runner._network.get_parameters()}
    for name, change in ((head, _equal), (embedding, _poisoned)):
        weight = parameters[name].asnumpy().copy()
        change(weight)
        parameters[name].set_data(Tensor(weight))
    return runner


def _equal(weight):
    for tokens in EQUAL:
        weight[tokens] = weight[tokens[0]]


def _poisoned(weight):
    weight[POISON] = np.nan


ENGINES = {
    "emulated": emulated,
    "emulated with adapters": functools.partial(emulated, 2),
    "static": static,
    "dynamic": dynamic,
    "decoder": decoder,
    "decoder with adapters": adapted,
    "openvino": openvino,
}


@functools.cache
def engine(name: str) -> Engine:
    """One for all checks of a process: it takes seconds to make."""
    return ENGINES[name]()


def run(name: str, check: str) -> None:
    """The check holds of this engine."""
    CHECKS[check](engine(name))


# ---- steps -------------------------------------------------------------------------------------------------------


def one_by_one(d: Driver, name: str, tokens: list[int]) -> np.ndarray:
    """Logits behind every token, ``[len(tokens), vocab]``, one token and one row a step."""
    return np.concatenate([d.step({name: [token]}) for token in tokens])


def alone(engine: Engine, tokens: list[int]) -> np.ndarray:
    """The same, by a driver of their own: whatever other drivers have left in the cache is lost."""
    return one_by_one(engine.driver(), "it", tokens)


def close(engine: Engine, found, expected) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=engine.logits_atol)


def chunks_and_decode_rows_mix(engine: Engine) -> None:
    """However prompts are split, and whoever else is in the step."""
    first, second = alone(engine, PROMPT), alone(engine, OTHER)
    d = engine.driver(seed=1)
    close(engine, d.step({"a": PROMPT[:5]}), first[4:5])
    close(engine, d.step({"b": OTHER[:4], "a": PROMPT[5:8]}), [second[3], first[7]])
    close(engine, d.step({"a": PROMPT[8:9], "b": OTHER[4:5]}), [first[8], second[4]])
    close(engine, d.step({"a": PROMPT[9:], "b": OTHER[5:]}), [first[10], second[5]])
    d.release("a")  # preempted and computed again, on other blocks
    close(engine, d.step({"a": PROMPT}), first[-1:])


def several_positions_of_a_row_are_those_of_separate_steps(engine: Engine) -> None:
    first, second = alone(engine, PROMPT), alone(engine, OTHER)
    d = engine.driver(seed=2)
    d.step({"a": PROMPT[:2]})
    found = d.step({"b": OTHER, "a": PROMPT[2:]}, [14, 7, 5, 7, 6, 0, 13])  # in any order, also twice
    expected = [first[10], first[3], second[5], first[3], first[2], second[0], first[9]]
    close(engine, found, expected)


def a_step_without_a_sampled_position_is_a_step(engine: Engine) -> None:
    d = engine.driver(seed=3)
    d.step({"a": PROMPT[:8]}, [])
    d.launch({"b": OTHER, "a": PROMPT[8:10]}, [])
    d.runner.fetch_best(Best(np.zeros((0, 1), np.int32)))
    close(engine, d.step({"a": PROMPT[10:]}), alone(engine, PROMPT)[-1:])


def padding_changes_nothing(engine: Engine) -> None:
    def rubbish(x: StepInputs) -> None:
        x.input_ids[11:], x.positions[11:] = 9, 200
        x.valid_length[1:], x.adapter[1:], x.block_tables[1:] = 77, 5, GARBAGE_BLOCK

    for bucket in BUCKETS[1:]:
        found = engine.driver(seed=4).step({"a": PROMPT}, bucket=bucket, spoil=rubbish)
        close(engine, found, alone(engine, PROMPT)[-1:])


def arrays_are_read_anew_at_each_launch(engine: Engine) -> None:
    d = engine.driver(seed=5)
    x = d.inputs({"a": PROMPT[:4]}, BUCKETS[0])
    binding = d.runner.bind(x)
    found, texts = [], (PROMPT[:4], OTHER[:4], PROMPT[:4])
    for tokens in texts:
        x.input_ids[:] = tokens
        d.runner.launch(binding)
        found.append(d.fetch([0])[0])
    close(engine, found, [alone(engine, tokens)[-1] for tokens in texts])


# ---- what is fetched ---------------------------------------------------------------------------------------------


def any_rows_in_any_order_and_again(engine: Engine) -> None:
    d = engine.driver(seed=6)
    d.launch({"a": PROMPT, "b": OTHER[:4]}, [10, 14, 3, 0])
    whole = d.fetch(range(4))
    assert np.ptp(whole, axis=0).max() > 0
    for rows in ([2], [3, 1], [1, 1, 0, 2, 3], [], [3, 2, 1, 0]):
        np.testing.assert_array_equal(d.fetch(rows), whole[rows])


def best_of(d: Driver, n: int, k: int, targets=None):
    """ids, logits, log_sum_exp and target_logit of the first ``n`` positions."""
    facts = d.facts
    targets = np.arange(n, dtype=np.int32) * 31 % facts.vocab_size if targets is None else targets
    best = Best(np.full((n, k), -9, np.int32), np.zeros((n, k), np.float32), np.zeros(n), np.zeros(n, np.float32))
    d.runner.fetch_best(best, targets)
    return best, targets


def what_is_best_is_that_of_the_logits(engine: Engine) -> None:
    d = engine.driver(seed=7)
    d.launch({"a": PROMPT, "b": OTHER[:4]}, [10, 14, 3, 0, 7, 5])
    logits = d.fetch(range(6))
    order = np.argsort(-logits, axis=1, kind="stable")
    for k in (1, 2, 5, 40, d.facts.candidates):
        for n in (6, 3, 1, 0):
            best, targets = best_of(d, n, k)
            np.testing.assert_array_equal(best.ids, order[:n, :k])
            np.testing.assert_array_equal(best.logits, np.take_along_axis(logits, order, 1)[:n, :k])
            np.testing.assert_array_equal(best.target_logit, logits[np.arange(n), targets])
            exact = np.logaddexp.reduce(logits[:n].astype(np.float64), axis=1)
            np.testing.assert_allclose(best.log_sum_exp, exact, rtol=0, atol=engine.scores_atol or 1e-6)
    only = np.zeros((6, 1), np.int32)
    d.runner.fetch_best(Best(only))
    np.testing.assert_array_equal(only, order[:, :1])
    np.testing.assert_array_equal(d.fetch([4, 1]), logits[[4, 1]])


def parts_of_what_is_best_may_be_left_out(engine: Engine) -> None:
    d = engine.driver(seed=8)
    d.launch({"a": PROMPT}, [10, 3, 0])
    whole, targets = best_of(d, 3, 5)
    for names in (("logits",), ("log_sum_exp",), ("target_logit",), ("logits", "log_sum_exp"), ()):
        arrays = {name: np.zeros_like(getattr(whole, name)) for name in ("ids", *names)}
        d.runner.fetch_best(Best(**arrays), targets if "target_logit" in names else None)
        for name, array in arrays.items():
            atol = engine.scores_atol if name == "log_sum_exp" else 0
            np.testing.assert_allclose(array, getattr(whole, name), rtol=0, atol=atol)


def log_probabilities_are_the_samplers(engine: Engine) -> None:
    d = engine.driver(seed=9)
    logits = d.step({"a": PROMPT}, range(2, 11))
    best, _ = best_of(d, 9, 20)
    sampler, out = Sampler(SamplingLimits(d.facts.vocab_size, 1), 1), SampleOutputs.allocate(9, 20)
    sampler.admit(0, SamplingParams(temperature=0.0, logprobs=20), [])
    sampler.sample(logits, np.zeros(9, np.int32), np.zeros(9, np.int32), out)
    found = (best.logits - best.log_sum_exp[:, None]).astype(np.float32)
    np.testing.assert_array_equal(best.ids, out.top_ids)
    np.testing.assert_allclose(found, out.top_logprobs, rtol=0, atol=engine.scores_atol)


def of_equal_logits_the_lowest_ids_come_first(engine: Engine) -> None:
    """All equal ones are among the candidates, or they go on behind the last one."""
    d, inside, behind = engine.driver(seed=10), 0, 0
    logits = d.step({"a": PROMPT, "b": OTHER[:5]}, [1, 3, 5, 7, 9, 11, 13, 15, 0])
    order, k = np.argsort(-logits, axis=1, kind="stable"), d.facts.candidates
    best, _ = best_of(d, 9, k)
    np.testing.assert_array_equal(best.ids, order[:, :k])
    for found, row in zip(best.logits, logits, strict=True):
        inside += np.count_nonzero(np.diff(found[found > found[-1]]) == 0)
        behind += np.count_nonzero(row == found[-1]) - np.count_nonzero(found == found[-1])
    assert behind > 0
    assert inside > 0 or d.facts.device == "emulated"  # where spikes are never equal


def not_finite_logits_are_said_row_by_row(engine: Engine) -> None:
    d = engine.driver(seed=11)
    d.launch({"a": PROMPT[:4], "bad": [5, POISON, 6], "b": OTHER}, [3, 5, 6, 12])
    logits, finite = d.fetch(range(4)), np.array([True, False, False, True])
    np.testing.assert_array_equal(np.isfinite(logits).all(axis=1), finite)
    order = np.argsort(-logits, axis=1, kind="stable")
    for k in (1, 5):
        best, targets = best_of(d, 4, k)
        only = np.zeros((4, 1), np.int32)
        d.runner.fetch_best(Best(only))
        np.testing.assert_array_equal(best.ids[:, 0] >= 0, finite)
        np.testing.assert_array_equal(only[:, 0], best.ids[:, 0])
        np.testing.assert_array_equal(best.ids[finite], order[finite][:, :k])
        np.testing.assert_array_equal(best.target_logit[finite], logits[np.arange(4), targets][finite])
        np.testing.assert_array_equal(np.isfinite(best.log_sum_exp), finite)
        assert np.isnan(best.logits[1:3]).all()
    d.tables["clean"] = d.tables["bad"]  # attention takes what lies behind a context times 0, which NaN does not bear
    for _ in range(0, d.facts.block_size, 16):
        d.step({"clean": [1] * 16})


# ---- what is refused ---------------------------------------------------------------------------------------------


def what_it_cannot_do_is_refused(engine: Engine) -> None:
    d = engine.driver(seed=12)
    facts = d.facts
    logits = d.step({"a": PROMPT})
    assert (facts.candidates, facts.scores, facts.adapters) == (64, True, 0)
    with pytest.raises(NotImplementedError, match=f"{facts.name} brings at most 64 candidates, not 65"):
        best_of(d, 1, 65)
    np.testing.assert_array_equal(d.fetch([0]), logits)
    d.lengths["a"] -= 1
    with pytest.raises((ModelError, ValueError), match=r"adapter\[0\] is 2, but no adapter is loaded: expected 0"):
        d.step({"a": PROMPT[-1:]}, spoil=lambda x: x.adapter.fill(2))
    d.lengths["a"] -= 1
    close(engine, d.step({"a": PROMPT[-1:]}), logits)


def wrong_arrays_are_refused_by_name_and_the_step_stays(engine: Engine) -> None:
    d = engine.driver(seed=13)
    n, vocab = 2, d.facts.vocab_size
    logits = d.step({"a": PROMPT, "b": OTHER[:4]})
    rows, out = np.zeros(n, np.int32), np.zeros((n, vocab), np.float32)
    for bad_rows, bad_out, message in (
        (rows, out[:1], r"logits must be .* shape \(2, 256\), but is float32 of shape \(1, 256\)"),
        (rows, out.astype(np.float64), "logits must be .*float32"),
        (rows, np.zeros((vocab, n), np.float32).T, "logits must be .*not contiguous"),
        (rows.astype(np.int64), out, "rows must be .*int32"),
        (np.array([0, 4], np.int32), out, r"rows\[1\] is 4, expected 0 to 3"),
        (np.array([-1, 0], np.int32), out, r"rows\[0\] is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            d.runner.fetch(bad_rows, bad_out)
    ids, floats, doubles = np.zeros((n, 3), np.int32), np.zeros(n, np.float32), np.zeros(n)
    for best, targets, message in (
        (Best(ids.astype(np.int64)), None, "ids must"),
        (Best(np.zeros((n, 1), np.float32)), None, "ids must"),
        (Best(np.zeros((n, 0), np.int32)), None, "ids must have shape"),
        (Best(np.zeros(n, np.int32)), None, "ids must have shape"),
        (Best(np.zeros((5, 3), np.int32)), None, "n up to 4 sampled positions"),
        (Best(np.zeros((5, 1), np.int32)), None, "n up to 4 sampled positions|expected 0 to 3"),
        (Best(ids, floats), None, "logits must be"),
        (Best(ids, log_sum_exp=floats), None, "log_sum_exp must be .*float64"),
        (Best(ids, log_sum_exp=np.zeros(3)), None, "log_sum_exp must be"),
        (Best(ids, target_logit=floats), None, "targets must be an array, but is NoneType"),
        (Best(ids), rows, "target_logit must be an array, but is NoneType"),
        (Best(ids[:, :1].copy()), rows, "target_logit must be an array, but is NoneType"),
        (Best(ids, target_logit=doubles), rows, "target_logit must be .*float32"),
        (Best(ids, target_logit=floats), rows[:1], "targets must be"),
        (Best(ids, target_logit=floats), rows + vocab, r"targets\[0\] is 256, expected 0 to 255"),
    ):
        with pytest.raises(ValueError, match=message):
            d.runner.fetch_best(best, targets)
    np.testing.assert_array_equal(d.fetch(range(2)), logits)


def wrong_inputs_are_refused_by_name(engine: Engine) -> None:
    d = engine.driver(seed=14)
    x = d.inputs({"a": PROMPT}, BUCKETS[2])
    for field in fields(x):
        array = getattr(x, field.name)
        for bad in (array.astype(np.int64), np.stack([array, array], axis=-1)[..., 0], array.tolist()):
            with pytest.raises(ValueError, match=f"^{field.name} must be"):
                d.runner.bind(replace(x, **{field.name: bad}))
        with pytest.raises(ValueError, match=f"^{field.name} must be|^no bucket of .*; there are 4x4, 16x4, 16x4x9"):
            d.runner.bind(replace(x, **{field.name: array[:-1]}))
    with pytest.raises(ValueError, match="no bucket of 16 tokens x 4 rows with 8 sampled positions"):
        d.runner.bind(replace(x, sample_index=x.sample_index[:8]))


def only_a_step_under_way_can_be_fetched(engine: Engine) -> None:
    """And of several faults the first one is said: no step, then the arrays, then the step itself."""
    d = engine.driver(seed=15)
    with pytest.raises(ModelError, match=r"no step is under way: call launch\(\) before fetch\(\)"):
        d.runner.fetch(np.zeros(9, np.float64), np.zeros(1, np.float32))
    with pytest.raises(ModelError, match="no step is under way"):
        d.runner.fetch_best(Best(np.zeros(1, np.int32)))
    d.launch({"a": PROMPT})
    with pytest.raises(ModelError, match=r"a step is under way: fetch\(\) or abandon\(\) it before the next launch"):
        d.launch({"b": OTHER})
    d.runner.abandon()
    d.runner.abandon()
    with pytest.raises(ModelError, match="no step is under way"):
        d.fetch([0])


def after_a_faulty_step_none_is_under_way(engine: Engine) -> None:
    d = engine.driver(seed=16)
    d.step({"a": PROMPT[:10]})
    with pytest.raises((ModelError, ValueError), match=r"slot_mapping\[0\] is 640"):
        d.step({"a": PROMPT[10:]}, spoil=lambda x: x.slot_mapping.fill(640))
    with pytest.raises(ModelError, match="no step is under way"):
        d.fetch([0])
    d.lengths["a"] = 10
    close(engine, d.step({"a": PROMPT[10:]}), one_by_one(d, "alone", PROMPT)[-1:])


def an_abandoned_step_leaves_the_runner_usable(engine: Engine) -> None:
    d = engine.driver(seed=17)
    d.step({"a": PROMPT[:10]})
    d.launch({"a": PROMPT[10:]})
    d.runner.abandon()
    d.lengths["a"] = 10
    close(engine, d.step({"a": PROMPT[10:]}), one_by_one(d, "alone", PROMPT)[-1:])


# ---- adapters ----------------------------------------------------------------------------------------------------


def rows_with_other_adapters_are_those_of_separate_steps(engine: Engine) -> None:
    """Decode rows and chunks, resumed, and the same text with another adapter is another answer."""
    expected = [with_adapter(engine, number) for number in range(engine.runner.facts.adapters + 1)]
    for number, logits in enumerate(expected):
        assert np.abs(logits - expected[number - 1]).max() > 1000 * engine.logits_atol
    d = engine.driver(seed=18)
    d.adapters = {"none": 0, "first": 1, "second": 2, "again": 1}
    close(
        engine,
        d.step({"second": PROMPT[:5], "none": PROMPT[:4], "first": PROMPT[:7]}),
        rows(expected, (2, 4), (0, 3), (1, 6)),
    )
    one_each = {name: [PROMPT[d.lengths[name]]] for name in ("first", "none", "second")}
    close(engine, d.step(one_each), rows(expected, (1, 7), (0, 4), (2, 5)))
    d.release("first")
    close(engine, d.step({"first": PROMPT, "second": PROMPT[6:9]}), rows(expected, (1, 10), (2, 8)))
    close(engine, d.step({"second": PROMPT[9:], "again": PROMPT[:1]}), rows(expected, (2, 10), (1, 0)))


def with_adapter(engine: Engine, number: int) -> np.ndarray:
    d = engine.driver()
    d.adapters["it"] = number
    return one_by_one(d, "it", PROMPT)


def rows(expected: list[np.ndarray], *places: tuple[int, int]) -> list[np.ndarray]:
    """Of adapters, and tokens of their texts."""
    return [expected[number][token] for number, token in places]


def an_adapter_that_is_not_loaded_is_refused(engine: Engine) -> None:
    d = engine.driver(seed=19)
    for number in (3, -1):
        with pytest.raises((ModelError, ValueError), match=rf"adapter\[0\] is {number}, .* 0( to |\.\.)2$"):
            d.step({str(number): PROMPT}, spoil=lambda x, number=number: x.adapter.fill(number))


EVERYWHERE = (
    chunks_and_decode_rows_mix,
    several_positions_of_a_row_are_those_of_separate_steps,
    a_step_without_a_sampled_position_is_a_step,
    padding_changes_nothing,
    arrays_are_read_anew_at_each_launch,
    any_rows_in_any_order_and_again,
    what_is_best_is_that_of_the_logits,
    parts_of_what_is_best_may_be_left_out,
    log_probabilities_are_the_samplers,
    of_equal_logits_the_lowest_ids_come_first,
    what_it_cannot_do_is_refused,
    wrong_arrays_are_refused_by_name_and_the_step_stays,
    wrong_inputs_are_refused_by_name,
    only_a_step_under_way_can_be_fetched,
    after_a_faulty_step_none_is_under_way,
    an_abandoned_step_leaves_the_runner_usable,
)
WHERE_SOMETHING_COMPUTES = (not_finite_logits_are_said_row_by_row,)
WITH_ADAPTERS = (rows_with_other_adapters_are_those_of_separate_steps, an_adapter_that_is_not_loaded_is_refused)
CHECKS = {check.__name__: check for check in (*EVERYWHERE, *WHERE_SOMETHING_COMPUTES, *WITH_ADAPTERS)}
