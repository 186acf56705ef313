"""Folders of a Hub cache, and what is no folder."""

from __future__ import annotations

import os

import pytest

from model.errors import CheckpointError, ConfigurationError, TokenizerError
from model.folder import find_tokenizer, locate_model, refuse_multimodal, refuse_quantized, weight_files


@pytest.fixture
def cache(tmp_path):
    repository = tmp_path / "models--Qwen--Qwen3-0.6B"
    for age, commit in enumerate(("new", "old")):
        (repository / "snapshots" / commit).mkdir(parents=True)
        os.utime(repository / "snapshots" / commit, (1e9 - age, 1e9 - age))
    return repository


@pytest.mark.parametrize("part", ["", "snapshots", "snapshots/new"])
def test_the_newest_snapshot_of_a_cache(cache, part):
    model = locate_model(cache / part)
    assert (model.path, model.name, model.short_name) == (
        cache / "snapshots" / "new", "Qwen/Qwen3-0.6B", "Qwen3-0.6B"
    )  # fmt: skip


def test_an_older_one_if_it_is_named(cache):
    assert locate_model(cache / "snapshots" / "old").path.name == "old"


def test_a_folder_is_what_it_is_called(tmp_path):
    (tmp_path / "my-model").mkdir()
    model = locate_model(tmp_path / "my-model")
    assert (model.path, model.name, model.short_name) == (tmp_path / "my-model", "my-model", "my-model")


def test_what_is_no_folder(tmp_path):
    for name in ("server.yaml", "x.gguf"):
        (tmp_path / name).write_text("x")
    (tmp_path / "models--a--b").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for name, expected in (
        ("server.yaml", "is a configuration, not a model's folder; start it with --config"),
        ("x.gguf", "is a file; give the folder"),
        ("loop", "is a link to loop, where nothing is"),
        ("Qwen/Qwen3-8B", "does not exist.*hf download ORG/NAME --local-dir"),
        ("models--a--b", "holds no snapshot of a/b; complete it: hf download a/b"),
    ):
        with pytest.raises(CheckpointError, match=expected):
            locate_model(tmp_path / name)


def test_the_command_that_completes_a_cache(cache):
    (cache / "blobs").mkdir()
    (cache / "blobs/abc.incomplete").write_text("")
    with pytest.raises(CheckpointError, match=r"unfinished \(abc\.incomplete\)"):
        weight_files(cache / "snapshots/new")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt"], "tokenizer.json"),
        (["tokenizer.model", "vocab.json", "merges.txt"], "tokenizer.model"),
        (["vocab.json", "merges.txt", "original/tokenizer.model"], "vocab.json"),
        (["config.json", "original/tokenizer.model"], "original/tokenizer.model"),
        (["vocab.json"], "no merges.txt beside it"),
        (["tekken.json"], "it has tekken.json, Mistral's own format, which is not supported; add one"),
        (["qwen.tiktoken"], "it has qwen.tiktoken, read by code that comes with the model"),
        (["config.json"], "has neither a tokenizer.json nor a tokenizer.model"),
    ],
)
def test_the_file_that_is_the_tokenizer(tmp_path, names, found):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    if (tmp_path / found).exists():
        assert find_tokenizer(tmp_path) == tmp_path / found
        return
    with pytest.raises(TokenizerError, match=found):
        find_tokenizer(tmp_path)


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "bitsandbytes"])
def test_quantized_weights_are_refused_by_name(method):
    with pytest.raises(ConfigurationError, match=rf"quantized by {method}\) is not supported; take the repository"):
        refuse_quantized({"quantization_config": {"quant_method": method, "bits": 4}})
    refuse_quantized({"quantization_config": None})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "gemma3", "text_config": {}}, "'gemma3' is multi-modal.*only models of text alone"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "'t5' is an encoder-decoder"),
    ],
)
def test_wrappers_are_refused_with_a_sentence(config, expected):
    with pytest.raises(ConfigurationError, match=expected):
        refuse_multimodal(config)
    refuse_multimodal({"model_type": "llama", "is_encoder_decoder": False})
