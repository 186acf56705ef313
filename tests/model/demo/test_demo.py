"""The shipped demo model: its files agree with each other, and its weights give the golden answers.

The answers are computed here by a Llama of forty lines of numpy, without torch or MindSpore. The same golden
lines are answered through the real runner elsewhere.
"""

from __future__ import annotations

import fnmatch
import json
import struct
import tomllib
from pathlib import Path

import numpy as np
import pytest

from model.demo import DEMO_DIR
from model.tokenizer import ChatTemplateError, IncrementalDetokenizer, load_tokenizer

REPOSITORY = Path(__file__).resolve().parents[3]
LARGEST_TOTAL = 8_000_000  # bytes
LEAST_MARGIN = 2.0  # logits; far more than the rounding of any machine


def read_json(name):
    return json.loads((DEMO_DIR / name).read_text(encoding="utf-8"))


def read_lines(name):
    return [json.loads(line) for line in (DEMO_DIR / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def config():
    return read_json("config.json")


@pytest.fixture(scope="module")
def tokenizer(config):
    return load_tokenizer(DEMO_DIR, model_vocab_size=config["vocab_size"])


@pytest.fixture(scope="module")
def weights():
    """name → array, read from the file format's description alone."""
    data = (DEMO_DIR / "model.safetensors").read_bytes()
    (header_size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + header_size])
    assert header.pop("__metadata__") == {"format": "pt"}
    body = data[8 + header_size :]
    assert max(tensor["data_offsets"][1] for tensor in header.values()) == len(body)
    return {name: read_tensor(tensor, body) for name, tensor in header.items()}


def read_tensor(tensor, body):
    assert tensor["dtype"] == "F16"
    start, end = tensor["data_offsets"]
    return np.frombuffer(body[start:end], np.float16).reshape(tensor["shape"])


def test_size():
    files = [path for path in DEMO_DIR.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LARGEST_TOTAL


def test_every_file_is_part_of_the_package():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["model"]
    names = [f"demo/{path.name}" for path in DEMO_DIR.iterdir() if path.is_file() and path.suffix != ".py"]
    assert len(names) >= 8
    assert [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)] == []


def test_tensors_fit_the_configuration(config, weights):
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    layer = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    expected = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    for number in range(config["num_hidden_layers"]):
        expected |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    assert config["tie_word_embeddings"]  # so there is no lm_head
    assert {name: tensor.shape for name, tensor in weights.items()} == expected
    assert all(np.isfinite(tensor).all() for tensor in weights.values())


def test_tokenizer_fits_the_configuration(config, tokenizer):
    generation = read_json("generation_config.json")
    ids = (tokenizer.bos_id, tokenizer.eos_id, tokenizer.special.pad_id)
    assert tokenizer.vocab_size == config["vocab_size"]
    assert ids == tuple(config[f"{name}_token_id"] for name in ("bos", "eos", "pad"))
    assert ids == tuple(generation[f"{name}_token_id"] for name in ("bos", "eos", "pad"))
    assert tokenizer.eos_ids == {tokenizer.eos_id}


def test_chat_template(tokenizer):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Hello "},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Bye"},
    ]
    prompt = tokenizer.apply_chat_template(messages)
    assert prompt == ("<s><|system|>Be brief.</s><|user|>Hello</s><|assistant|>Hi.</s><|user|>Bye</s><|assistant|>")
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=False) + "<|assistant|>" == prompt
    assert len(set(tokenizer.encode(prompt, add_special=False)) & tokenizer.special_ids) == 5
    with pytest.raises(ChatTemplateError, match="unknown role clown; use system, user, assistant or tool"):
        tokenizer.apply_chat_template([{"role": "clown", "content": "x"}])


def test_tools_their_calls_and_results_stand_before_the_chat(tokenizer):
    """The model knows nothing of them, so the chat looks as it has learned it."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
    ]
    prompt = tokenizer.apply_chat_template(messages, tools=[{"type": "function", "function": {"name": "f"}}])
    assert prompt == (
        '<s><|system|>Tools, called by <tool_call>: [{"type": "function", "function": {"name": "f"}}]\n'
        '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
        "<tool_response>\n42\n</tool_response></s><|user|>Hello</s><|assistant|>"
    )


def test_any_text_can_be_encoded(tokenizer):
    text = "Ünïcödé 中文 😀 \x00 <|unknown|>"
    ids = tokenizer.encode(text, add_special=False)
    detokenizer = IncrementalDetokenizer(tokenizer)
    assert "".join(map(detokenizer.push, ids)) + detokenizer.finish() == text == tokenizer.decode(ids)


def test_questions_are_those_of_the_training_text():
    sources = sorted((REPOSITORY / "scripts" / "train" / "data" / "questions").glob("*.txt"))
    written = [line for path in sources for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = read_lines("questions.jsonl")
    asked = [f"? {question}" for pair in pairs for question in pair["questions"]]
    assert asked == [line for line in written if line.startswith("? ")]
    assert len(pairs) >= 250
    assert {pair["answer"] for pair in pairs} == {line for line in written if line and line[:2] != "? "}


def test_golden_lines_fit_tokenizer_and_questions(config, tokenizer):
    answers = {pair["answer"] for pair in read_lines("questions.jsonl")}
    golden = read_lines("golden.jsonl")
    assert len(golden) == 20
    assert {line["form"] for line in golden} == {"chat", "completion", "bare"}
    for line in golden:
        assert tokenizer.encode(line["prompt"], add_special=False) == line["prompt_ids"]
        assert line["answer_ids"][-1] == tokenizer.eos_id
        assert tokenizer.decode(line["answer_ids"]) == line["answer"]
        assert line["answer"].strip() in answers
        assert len(line["prompt_ids"] + line["answer_ids"]) <= config["max_position_embeddings"]
        assert line["margin"] > LEAST_MARGIN


def test_weights_give_the_golden_answers(config, weights):
    """Each right token has the greatest logit given those before it, so greedy decoding writes the answer."""
    tensors = {name: tensor.astype(np.float32) for name, tensor in weights.items()}
    for line in read_lines("golden.jsonl"):
        prompt, answer = line["prompt_ids"], line["answer_ids"]
        logits = llama_logits(tensors, config, np.array(prompt + answer[:-1]))[len(prompt) - 1 :]
        assert logits.argmax(axis=1).tolist() == answer
        chosen = logits[np.arange(len(answer)), answer].copy()
        logits[np.arange(len(answer)), answer] = -np.inf
        assert (chosen - logits.max(axis=1)).min() == pytest.approx(line["margin"], abs=0.05)


def llama_logits(tensors, config, ids):
    """[T, vocab] of the ids [T]; Touvron et al., 2023 (arXiv:2302.13971)."""
    x = tensors["model.embed_tokens.weight"][ids]
    cos, sin = rotary_tables(config, len(ids))
    for number in range(config["num_hidden_layers"]):
        weight = {
            name.removeprefix(prefix).removesuffix(".weight"): tensor.T
            for prefix in [f"model.layers.{number}."]
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        x = x + attention(rms_norm(x, weight["input_layernorm"], config), weight, config, cos, sin)
        y = rms_norm(x, weight["post_attention_layernorm"], config)
        gate = y @ weight["mlp.gate_proj"]
        x = x + (gate / (1 + np.exp(-gate)) * (y @ weight["mlp.up_proj"])) @ weight["mlp.down_proj"]
    return rms_norm(x, tensors["model.norm.weight"], config) @ tensors["model.embed_tokens.weight"].T


def rms_norm(x, weight, config):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + config["rms_norm_eps"]) * weight


def rotary_tables(config, length):
    half = np.arange(0, config["head_dim"], 2) / config["head_dim"]
    angles = np.outer(np.arange(length), config["rope_theta"] ** -half)
    angles = np.concatenate([angles, angles], axis=1)
    return np.cos(angles)[:, None], np.sin(angles)[:, None]  # [T, 1, head_dim]


def attention(x, weight, config, cos, sin):
    def heads(name):
        return (x @ weight[f"self_attn.{name}"]).reshape(len(x), -1, config["head_dim"])

    def rotate(y):
        left, right = np.split(y, 2, axis=-1)
        return y * cos + np.concatenate([-right, left], axis=-1) * sin

    group = config["num_attention_heads"] // config["num_key_value_heads"]
    query, key, value = rotate(heads("q_proj")), rotate(heads("k_proj")), heads("v_proj")
    key, value = np.repeat(key, group, axis=1), np.repeat(value, group, axis=1)
    scores = np.einsum("thd,shd->hts", query, key) / np.sqrt(config["head_dim"])
    scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = np.einsum("hts,shd->thd", scores / scores.sum(axis=-1, keepdims=True), value)
    return mixed.reshape(len(x), -1) @ weight["self_attn.o_proj"]
