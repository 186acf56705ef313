"""What ``auto`` comes to, and which bound it was."""

from __future__ import annotations

import json

import pytest

from pipeline.config import ConfigurationError, Override, load_configuration, load_folder
from pipeline.config.files import default_compile_cache
from pipeline.config.room import steady

GIB = 1 << 30
LLAMA = {
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "eos_token_id": 128001,
}
"""Llama 3.2 1B: 4.6 GiB in float32, and 64 KiB of KV cache a token."""


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Makes a folder with that model, on a host with so much memory, and without OpenVINO."""
    monkeypatch.setattr("model.openvino.requirements.missing_package", lambda: "openvino is not installed")

    def make(gib=1000.0, tokenizer_length=None, **changes):
        folder = tmp_path / "Llama-3.2-1B"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(LLAMA | changes))
        (folder / "tokenizer.json").write_text("{}")
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": tokenizer_length or 10**30}))
        (folder / "model.safetensors").write_text("x")
        monkeypatch.setattr("model.mindspore_common.memory.available_memory", lambda: int(gib * GIB))
        return folder

    return make


def chosen(config):
    return {choice.key.rpartition(".")[2]: (choice.value, choice.why) for choice in config.choices}


def test_blocks_do_not_follow_every_change_of_the_free_memory(model):
    """Else the compile cache would have nothing for the next start."""
    found = [load_folder(model(gib)).pa_config.num_blocks for gib in (8.0, 8.05, 7.98)]
    assert found == [1152] * 3
    assert load_folder(model(9.0)).pa_config.num_blocks > 1152


@pytest.mark.parametrize("blocks", [1, 7, 15, 16, 17, 1000, 1179, 1 << 20])
def test_rounding_blocks_loses_an_eighth_at_most(blocks):
    assert blocks * 7 / 8 < steady(blocks) <= blocks


@pytest.mark.parametrize(
    ("host", "overrides", "length", "why"),
    [
        ({}, [], 32768, "the model has 131072 positions; --max-model-len asks for more"),
        ({"max_position_embeddings": 8192}, [], 8192, "as many positions as the model has"),
        ({"tokenizer_length": 4096}, [], 4096, "model_max_length of tokenizer_config.json"),
        ({}, ["pa_config.decode_seq_length=2048"], 2048, "pa_config.decode_seq_length"),
        ({}, ["pa_config.num_blocks=100"], 1600, "pa_config.num_blocks"),
        ({"gib": 8.0}, [], 18432, "memory: 7.2 GiB may be used, of which model and stages take 6.0 GiB"),
    ],
)
def test_which_bound_the_length_has(model, host, overrides, length, why):
    config = load_folder(model(**host), overrides)
    assert chosen(config)["max_generate_length"] == (length, why)
    assert (config.max_length, config.max_prompt) == (length, length - 1)


def test_a_host_with_much_memory_gets_all_it_can_use(model):
    config = load_folder(model())
    assert chosen(config)["num_blocks"] == (32768, "room for 16 x 32768 tokens, all rows at their longest")
    assert (config.pipeline.max_rows, config.pipeline.token_budget, config.pa_config.block_size) == (16, 256, 16)
    assert config.model_config.model_dtype == "bfloat16"


def test_ranks_share_the_memory_and_have_a_part_of_the_model_each(model):
    options = ["pipeline.runner.kind=mindspore", "model_config.max_generate_length=131072", "pipeline.max_rows=1"]
    one = load_folder(model(gib=40.0), [*options, "pipeline.token_budget=64"])
    two = load_folder(model(gib=40.0), [*options, "pipeline.token_budget=64", "serving_config.agent_ports=[1, 2]"])
    assert (one.pipeline.ranks, two.pipeline.ranks) == (1, 2)
    assert chosen(two)["num_blocks"] == chosen(one)["num_blocks"]
    with pytest.raises(ConfigurationError, match=r"can't be divided among 3 ranks; use "):
        load_folder(model(gib=40.0), [*options, "pipeline.ranks=3"])


def test_a_host_with_little_memory_gets_fewer_rows(model):
    config = load_folder(model(gib=7.0))
    assert config.pa_config.num_blocks * 16 // 512 == config.model_config.decode_batch_size == 8
    assert chosen(config)["decode_batch_size"][1].startswith("512 tokens a row; memory: 6.3 GiB may be used")
    more = load_folder(model(gib=7.0), ["pipeline.memory_fraction=1"])
    assert more.pa_config.num_blocks > config.pa_config.num_blocks


def test_the_lengths_of_real_models_start(model):
    config = load_folder(model(), [Override("model_config.max_generate_length", 131072, "--max-model-len 131072")])
    assert (config.max_length, config.pa_config.num_blocks) == (131072, 131072)
    assert config.pipeline.rings.reply_bytes == 4 << 20
    assert "max_generate_length" not in chosen(config)


@pytest.mark.parametrize(
    ("gib", "overrides", "expected"),
    [
        (8.0, ["model_config.max_generate_length=20000"], r"holds 18864 tokens at most \(memory: .*-model-len 18864"),
        (6.0, [], r"the model does not fit into memory: 5\.4 GiB may be used .* and stages take 6\.0 GiB"),
        (99.0, ["pipeline.runner.device=Ascend"], "memory of an Ascend device is not known here; set it"),
        (99.0, ["pa_config.num_blocks=3", "model_config.max_generate_length=64"], "3 x 16, less than one sequence"),
        (99.0, ["model_config.max_generate_length=131073"], "the model knows 131072 positions"),
        (99.0, ["pa_config.block_size=x"], "block_size is 'x'; expected a whole number from 1 to 4096, or auto"),
    ],
)  # fmt: skip
def test_what_can_not_be_chosen(model, gib, overrides, expected):
    with pytest.raises(ConfigurationError, match=expected) as caught:
        load_folder(model(gib=gib), overrides)
    assert len(caught.value.problems) == 1


def test_a_family_that_is_not_supported_is_the_mistake(model):
    with pytest.raises(ConfigurationError, match="model_type 'mamba' is not supported"):
        load_folder(model(model_type="mamba"))


def test_an_emulated_device_has_as_much_memory_as_it_needs(model):
    config = load_folder(model(gib=0.1), ["pipeline.runner={kind: emulated, cost_model: {fixed_ms: 1}}"])
    assert config.pa_config.num_blocks == 16 * 2048
    config = load_folder(model(), ["pipeline.max_rows=3"])
    assert chosen(config)["decode_batch_size"] == (3, "pipeline.max_rows")
    assert config.pa_config.num_blocks == 3 * 2048


def test_what_was_chosen_stays_when_it_is_read_again(model):
    first = load_folder(model(gib=8.0))
    known = {choice.key: choice.value for choice in first.choices}
    again = load_folder(model(gib=16.0), known=known)
    assert again.to_yaml() == first.to_yaml()
    assert load_folder(model(gib=16.0)).to_yaml() != first.to_yaml()


def test_what_is_printed_starts_the_same_server(model, tmp_path):
    first = load_folder(model(gib=8.0), ["serving_config.server_port=0"])
    (tmp_path / "kept.yaml").write_text(first.to_yaml())
    kept = load_configuration(tmp_path / "kept.yaml")
    assert kept.to_yaml() == first.to_yaml()
    assert kept.choices == ()


def test_a_file_may_say_auto_too(model, tmp_path):
    model(gib=8.0)
    text = "model_config: {max_generate_length: auto}\npa_config: {num_blocks: auto}\n"
    (tmp_path / "server.yaml").write_text(text + "pipeline: {model_dir: Llama-3.2-1B}")
    config = load_configuration(tmp_path / "server.yaml")
    assert [choice.key for choice in config.choices] == ["model_config.max_generate_length", "pa_config.num_blocks"]


def test_names_of_the_model(model, tmp_path):
    config = load_folder(model())
    assert (config.pipeline.model_name, config.pipeline.model_aliases) == ("Llama-3.2-1B", ())
    (tmp_path / "models--meta-llama--L/snapshots").mkdir(parents=True)
    model().rename(tmp_path / "models--meta-llama--L/snapshots/abc")
    config = load_folder(tmp_path / "models--meta-llama--L")
    assert (config.pipeline.model_name, config.pipeline.model_aliases) == ("meta-llama/L", ("L",))
    assert config.model_config.model_name == "L"
    assert config.pipeline.model_dir == tmp_path / "models--meta-llama--L/snapshots/abc"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"config.json": json.dumps(LLAMA | {"text_config": {}})}, "'llama' is multi-modal, which is out of scope"),
        ({"config.json": "version https://git-lfs.github.com/spec/v1"}, "config.json is a Git LFS pointer"),
        ({"config.json": "["}, "config.json.* is not JSON"),
        ({"model.safetensors": "x"}, "holds weights, but no config.json, which describes the model"),
        ({"model-Q4.gguf": "x"}, "is GGUF, llama.cpp's format"),
        ({"consolidated.00.pth": "x", "params.json": "{}"}, "convert_llama_weights_to_hf"),
    ],
)
def test_folders_that_are_no_model(tmp_path, content, expected):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=expected):
        load_folder(tmp_path)


def test_compiled_graphs_go_into_the_user_s_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_compile_cache({}) == tmp_path / ".cache/ringserve/compile"
    assert default_compile_cache({"XDG_CACHE_HOME": f"{tmp_path}/x"}) == tmp_path / "x/ringserve/compile"
    assert default_compile_cache({"XDG_CACHE_HOME": "relative"}) == tmp_path / ".cache/ringserve/compile"
    assert default_compile_cache({"XDG_CACHE_HOME": "/dev/null/x"}) is None


@pytest.fixture
def openvino(model, monkeypatch):
    """It is installed, on a processor that it can use."""
    for name in ("missing_package", "missing_flag"):
        monkeypatch.setattr(f"model.openvino.requirements.{name}", lambda: None)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.mark.usefixtures("openvino")
def test_openvino_is_taken_where_it_is_installed(model):
    first = load_folder(model())
    assert first.pipeline.runner.kind == "openvino"
    assert chosen(first)["kind"] == ("openvino", "it is installed, and this processor has AVX2")
    assert chosen(first)["block_size"] == (32, "what attention on openvino works in")
    assert first.pipeline.runner.weight_dtype is first.pipeline.runner.kv_dtype is None  # nothing is quantized
    assert chosen(first)["num_blocks"][0] == 16 * 1024


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize(
    ("changes", "options", "kind"),
    [
        ({}, ["pipeline.runner.kind=mindspore"], "mindspore"),
        ({}, ["pipeline.runner.device=Ascend", "pa_config.num_blocks=64"], "mindformers"),
        ({"model_type": "gemma2", "attn_logit_softcapping": 50.0}, [], "mindspore"),
        ({"model_type": "mixtral", "num_local_experts": 4}, [], "mindspore"),
    ],
)
def test_openvino_is_left_where_it_can_not_compute(model, changes, options, kind):
    config = load_folder(model(**changes), [*options, "model_config.max_generate_length=512"])
    assert config.pipeline.runner.kind == kind
    assert "kind" not in chosen(config)


@pytest.mark.usefixtures("openvino")
def test_openvino_is_left_where_ranks_are_to_divide_the_model(model):
    config = load_folder(model(), ["pipeline.ranks=2", "model_config.max_generate_length=512"])
    assert chosen(config)["kind"] == ("mindspore", "openvino divides no model among ranks (pipeline.ranks)")


@pytest.mark.usefixtures("openvino")
def test_openvino_is_left_where_adapters_are_to_lie_beside_the_model(model, tmp_path, monkeypatch):
    (tmp_path / "lora").mkdir()
    beside = load_folder(model(), [f"pipeline.lora.adapters={{a: {tmp_path}/lora}}"])
    assert beside.pipeline.runner.kind == "mindspore"
    assert chosen(beside)["kind"] == (
        "mindspore",
        "openvino takes no adapters beside the model (pipeline.lora.adapters)",
    )
    known = {choice.key: choice.value for choice in beside.choices}
    assert load_folder(model(), known=known).pipeline.runner.kind == "mindspore"
    merged = load_folder(model(), [f"pipeline.lora.merged={tmp_path}/lora"])
    assert merged.pipeline.runner.kind == "openvino"
    monkeypatch.setattr("model.openvino.requirements.missing_package", lambda: "openvino is not installed")
    assert "kind" not in chosen(load_folder(model(), [f"pipeline.lora.adapters={{a: {tmp_path}/lora}}"]))


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize(
    ("pages", "blocks", "why"),
    [
        ("num_blocks: 100", 50, "not in 16; pa_config.num_blocks 100 becomes 50"),
        ("num_blocks: 99, block_size: 16", 50, "not in 16; pa_config.num_blocks 99 becomes 50"),
        ("num_blocks: 40, block_size: 128", 160, "not in 128; pa_config.num_blocks 40 becomes 160"),
        ("num_blocks: 32", 32, "pa_config.num_blocks 32 becomes 32"),  # one for each row
        ("num_blocks: auto, block_size: 16", 16 * 32, "openvino's attention works in these, not in 16"),
        ("num_blocks: 100, block_size: 32", 100, None),
    ],
)
def test_another_block_size_is_replaced_and_said(model, tmp_path, pages, blocks, why):
    model()
    rows = 32 if blocks == 32 else 16
    (tmp_path / "server.yaml").write_text(
        f"model_config: {{max_generate_length: 1024, decode_batch_size: {rows}}}\npa_config: {{{pages}}}\n"
        "pipeline: {model_dir: Llama-3.2-1B}"
    )
    config = load_configuration(tmp_path / "server.yaml")
    assert (config.pa_config.num_blocks, config.pa_config.block_size) == (blocks, 32)
    said = chosen(config).get("block_size", (32, ""))[1]
    assert why in said if why else not said


@pytest.mark.usefixtures("openvino")
def test_what_was_chosen_stays_when_openvino_comes_or_goes(model, monkeypatch):
    first = load_folder(model())
    known = {choice.key: choice.value for choice in first.choices}
    monkeypatch.setattr("model.openvino.requirements.missing_package", lambda: "openvino is not installed")
    assert load_folder(model(), known=known).to_yaml() == first.to_yaml()
    assert load_folder(model()).pipeline.runner.kind == "mindspore"


@pytest.mark.usefixtures("openvino")
def test_narrow_weights_make_room(model):
    plain = load_folder(model(gib=12.0), ["pipeline.runner.weight_dtype=f32"])
    narrow = load_folder(model(gib=12.0), ["pipeline.runner={weight_dtype: int8, kv_dtype: u8}"])
    assert narrow.pa_config.num_blocks > 4 * plain.pa_config.num_blocks
    with pytest.raises(ConfigurationError, match="is int8, which only the openvino engine knows, not mindspore"):
        load_folder(model(), ["pipeline.runner={kind: mindspore, weight_dtype: int8}"])
