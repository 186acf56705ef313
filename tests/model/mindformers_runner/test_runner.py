"""The mindformers runner as its caller sees it: bindings, errors, compilation, the terminal."""

import contextlib
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from model.mindformers_runner import MindFormersRunner
from model.runner import Bucket, StepInputs
from tests.model import scenarios
from tests.model.conftest import DATA
from tests.model.families.checkpoints import load
from tests.model.numpy_llama import read_safetensors, write_safetensors

MODEL = DATA / "grouped"
CHECKPOINTS = load()


def test_change_in_the_arrays_is_seen_without_a_new_binding(in_mindspore, reference):
    seen = in_mindspore(scenarios.changes_are_seen, MODEL)
    for kind in ("private", "shared"):
        first, other, again = seen[kind]
        assert np.abs(first - other).max() > 0.1
        np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(seen["private"][1], seen["shared"][1])


def test_greedy_and_corrupt_steps(in_mindspore):
    seen = in_mindspore(scenarios.greedy_and_errors, MODEL)
    logits = seen["logits"].astype(np.float64)
    assert seen["chosen"] == [logits.argmax()] * 2
    assert seen["logprob"] == pytest.approx(logits.max() - np.logaddexp.reduce(logits), rel=1e-5)
    np.testing.assert_array_equal(seen["after"], seen["logits"])
    assert seen["nan"] == -1
    assert seen["errors"] == [
        "StepError: corrupt step: input_ids[0] is -1, outside 0..255",
        "StepError: corrupt step: input_ids[0] is 256, outside 0..255",
        "StepError: corrupt step: positions[0] is 256, outside 0..255",
        "StepError: corrupt step: sample_index[0] is 1, outside 0..0",
        "StepError: corrupt step: adapter[0] is 1, but no adapter is loaded: expected 0",
        "StepError: corrupt step: slot_mapping[0] is 640, outside -1..639",
        "StepError: corrupt step: block_tables (flat)[0] is 40, outside 0..39",
        "StepError: corrupt step: valid_length[0] is 0, outside 1..256",
        "StepError: corrupt step: q_seq_lens[0] is 2, outside 0..1",
        "ModelError: no step is under way: call launch() before fetch()",
        "ModelError: mindformers Llama 64 x 2 is not loaded",
    ]


def test_warm_up_compiles_smallest_first_and_nothing_after_it(in_mindspore):
    on_demand, progress, later = in_mindspore(scenarios.compilations, MODEL)
    assert any("compiling a graph for 1 tokens x 1 rows during a step" in line for line in on_demand)
    assert [event for event in progress if event[0] == "compiling"] == [
        ("compiling", done, len(scenarios.BUCKETS)) for done in range(1, len(scenarios.BUCKETS) + 1)
    ]
    loading = [event for event in progress if event[0] == "loading weights"]
    assert loading[-1][1] == loading[-1][2] == len(loading)
    assert later == []


def test_plain_operators_compute_the_same(in_mindspore, reference):
    tokens = [tokens[:40] for tokens, _ in reference("grouped")]
    small = {"buckets": (Bucket(16, 4),), "token_budget": 16}
    _, custom = in_mindspore(scenarios.mixed_run, MODEL, tokens, 5, **small)
    _, plain = in_mindspore(scenarios.mixed_run, MODEL, tokens, 5, **small, attention="plain")
    for ours, theirs in zip(custom, plain, strict=True):
        assert ours[:2] == theirs[:2]
        np.testing.assert_allclose(ours[2], theirs[2], atol=1e-4)


def test_dynamic_shapes_as_on_ascend(in_mindspore, reference):
    tokens = [tokens for tokens, _ in reference("grouped")]
    _, expected = in_mindspore(scenarios.mixed_run, MODEL, tokens, 3)
    results = in_mindspore(scenarios.dynamic_run, MODEL, tokens, 3)
    assert len(results) > 12
    for ours, theirs in zip(results, expected, strict=False):
        assert ours[:2] == theirs[:2]
        np.testing.assert_allclose(ours[2], theirs[2], atol=1e-4)
        assert ours[3] == ours[2].argmax()


def test_compile_cache_keeps_graphs_apart(in_mindspore, reference, tmp_path):
    """Every run in a process of its own, since MindSpore counts graphs by process: one shape, the same again from the
    cache, and then another model in a process that has a cache already. Shapes in other orders, of which some are not
    there, are the same code's matter: tests/model/mindspore_runner, whose graphs compile much sooner."""
    tokens = [tokens[:40] for tokens, _ in reference("grouped")]

    options = {"buckets": (Bucket(16, 4),), "token_budget": 16}
    _, plain = in_mindspore(scenarios.mixed_run, MODEL, tokens, 5, **options)

    @contextlib.contextmanager
    def run():
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            cached = pool.submit(
                scenarios.mixed_run, MODEL, tokens, 5, warm_up=True, **options, compile_cache_dir=tmp_path
            )
            for ours, theirs in zip(cached.result(timeout=280)[1], plain, strict=True):
                assert ours[:2] == theirs[:2]
                np.testing.assert_array_equal(ours[2], theirs[2])
            yield pool

    with run():
        (graphs,) = tmp_path.iterdir()
        written = {file: file.stat().st_mtime_ns for file in graphs.rglob("*.mindir")}
        assert written
    with run() as pool:
        assert {file: file.stat().st_mtime_ns for file in graphs.rglob("*.mindir")} == written
        other = pool.submit(scenarios.logits_of_one_token, DATA / "tied", compile_cache_dir=tmp_path)
        np.testing.assert_array_equal(
            other.result(timeout=280), in_mindspore(scenarios.logits_of_one_token, DATA / "tied")
        )
        assert list(tmp_path.iterdir()) == [graphs]


def test_random_weights_follow_the_seed(in_mindspore):
    same = [in_mindspore(scenarios.logits_of_one_token, MODEL, checkpoint_path=None, seed=4) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    other = in_mindspore(scenarios.logits_of_one_token, MODEL, checkpoint_path=None, seed=5)
    assert np.abs(other - same[0]).max() > 1e-3


@pytest.mark.engine
def test_terminal_and_directory_stay_clean(tmp_path):
    """With either network: mindformers would list its configuration."""
    other, work = CHECKPOINTS["qwen3"].save(tmp_path / "other"), tmp_path / "work"
    work.mkdir()
    code = f"""
import sys, warnings
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
import model
from model.mindformers_runner import MindFormersRunner, MindFormersSettings
assert not {{"mindspore", "mindformers", "yaml"}} & set(sys.modules) - {{"yaml"}}
show = warnings.showwarning
for directory in (Path({str(MODEL)!r}), Path({str(other)!r})):
    settings = MindFormersSettings(directory, directory, num_blocks=4, max_rows=1, token_budget=1, max_length=64)
    runner = MindFormersRunner(settings)
    runner.load()
    runner.warm_up()
assert warnings.showwarning is show
print("done")
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=work, timeout=240, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")
    assert list(work.iterdir()) == []


@pytest.fixture
def runner():
    return MindFormersRunner(scenarios.settings(MODEL))


def test_facts_are_known_without_mindspore(runner):
    facts = runner.facts
    assert (facts.device, facts.vocab_size, facts.max_length) == ("CPU", 256, 256)
    assert (facts.num_blocks, facts.block_size, facts.block_table_width) == (40, 16, 16)
    assert facts.buckets == scenarios.BUCKETS
    assert "mindspore" not in sys.modules


def inputs(facts, bucket=Bucket(4, 4), **changes) -> StepInputs:  # noqa: B008
    arrays = {
        **{name: np.zeros(bucket.tokens, np.int32) for name in ("input_ids", "positions", "slot_mapping")},
        **{name: np.zeros(bucket.rows, np.int32) for name in ("valid_length", "q_seq_lens", "adapter")},
        "sample_index": np.zeros(bucket.samples, np.int32),
        "block_tables": np.zeros((bucket.rows, facts.block_table_width), np.int32),
    }
    return StepInputs(**{**arrays, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bucket": Bucket(5, 4)}, "no bucket of 5 tokens x 4 rows; there are 1x1, 4x4, 16x4, 48x4"),
        (
            {"positions": np.zeros(4, np.int64)},
            "positions must be a C-contiguous int32 .* but is int64",
        ),
        (
            {"q_seq_lens": np.zeros(3, np.int32)},
            r"q_seq_lens must be .* but is int32 of shape \(3,\)",
        ),
        ({"block_tables": np.zeros((4, 15), np.int32)}, r"block_tables must be .* shape \(4, 16\)"),
        ({"slot_mapping": np.zeros(8, np.int32)[::2]}, "slot_mapping must be .*, not contiguous"),
        ({"sample_index": [0, 0, 0, 0]}, "sample_index must be an array, but is list"),
    ],
)
def test_wrong_arrays_are_refused(runner, changes, message):
    with pytest.raises(ValueError, match=message):
        runner.bind(inputs(runner.facts, **changes))


def test_steps_leave_nothing_for_the_garbage_collector(in_mindspore):
    """The process that runs them switches it off."""
    assert in_mindspore(scenarios.garbage_of_steps, MODEL) == 0


def test_bindings_give_their_memory_back(in_mindspore):
    """A server binds anew whenever a stage of it was replaced, and keeps the runner."""
    mappings, grown_kib = in_mindspore(scenarios.rebound, MODEL)
    assert mappings == {1}  # of the last step: the graph keeps its inputs until the next one
    assert grown_kib < 2048


def spoiled(directory, spoil):
    """The small model with other weights: `spoil` changes arrays in place, by name."""
    directory.mkdir()
    (directory / "config.json").write_bytes((MODEL / "config.json").read_bytes())
    tensors = {
        name: array.astype(np.float32) for name, array in read_safetensors(MODEL / "model.safetensors").items()
    }
    for name, array in tensors.items():
        spoil(name, array)
    write_safetensors(directory / "model.safetensors", tensors)
    return directory


def test_weights_that_are_not_numbers_are_refused_by_name(in_mindspore, tmp_path):
    """Also where the first logits would not show it: one row of the embedding."""

    def one_row(name, array):
        if name == "model.embed_tokens.weight":
            array[200] = np.nan

    def all_norms(name, array):
        if "norm" in name:
            array[3] = np.inf

    why = in_mindspore(scenarios.refusal, spoiled(tmp_path / "row", one_row))
    assert "tensor model.embed_tokens.weight: 64 of 16384 values are NaN or infinite (the first at [200, 0])" in why
    assert "there are more" not in why
    why = in_mindspore(scenarios.refusal, spoiled(tmp_path / "norms", all_norms))
    assert why.count("1 of 64 values are NaN or infinite (the first at [3])") == 3
    assert " and there are more; the file is damaged" in why


def test_finite_weights_whose_logits_are_not(in_mindspore, tmp_path):
    def enormous(name, array):
        if name == "lm_head.weight":
            array[...] = 3e38

    why = in_mindspore(scenarios.refusal, spoiled(tmp_path / "huge", enormous))
    assert "of the model's first logits are not finite, though all weights are" in why
    assert in_mindspore(scenarios.refusal, spoiled(tmp_path / "as_it_was", lambda name, array: None)) is None
