"""Configuration files as a whole: what is accepted, and what takes effect.

Not covered: whether a runner can be made from what is accepted; that is tested where runners are made.
"""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import yaml

from model.response import REASONING, TOOLS
from pipeline.config import ConfigurationError, load_configuration
from pipeline.config.__main__ import main
from pipeline.config.pipeline_section import REASONING_FORMATS, TOOL_FORMATS
from tests.pipeline.config.helpers import DATA, EMULATED, LLM_SERVING, MODEL, ROOT, problems_of, the_problem


def test_one_line_is_enough(write, model_dir):
    configuration = load_configuration(write(MODEL))
    model = configuration.model_config
    assert (model.vocab_size, model.max_generate_length, model.seq_length, model.end_token) == (2048, 1024, 1024, 2)
    assert (model.model_cfg_path, model.checkpoint_path) == (model_dir / "config.json", model_dir)
    assert configuration.tokenizer.vocab_file == model_dir
    assert configuration.pipeline.hosts == ("127.0.0.1",)
    assert (configuration.pipeline.max_rows, configuration.pipeline.ranks) == (16, 1)
    assert configuration.block_table_width == 64
    assert (configuration.ignored_keys, configuration.warnings) == ((), ())


def test_a_file_of_llm_serving(write):
    configuration = load_configuration(write(LLM_SERVING), other_host=True)
    model = configuration.model_config
    assert (model.model_dtype, model.seq_length, model.decode_batch_size) == ("float16", 4096, 1)
    assert (configuration.pipeline.max_rows, configuration.pipeline.model_name) == (1, "llama_7b")
    assert configuration.serving_config.model_route == "llama2"
    assert set(configuration.ignored_keys) == {
        "basic_inputs",
        "extra_inputs",
        "warmup_inputs",
        *(
            f"model_config.{name}"
            for name in (
                "prefill_batch_size",
                "zactivate_len",
                "model_type",
                "seq_type",
                "batch_waiting_time",
                "decode_batch_waiting_time",
                "batching_strategy",
                "current_index",
            )
        ),
    }
    missing = {(problem.key, problem.line) for problem in configuration.warnings}
    assert missing == {("model_config.model_cfg_path", 20), ("tokenizer.vocab_file", 35)}


@pytest.mark.parametrize(
    ("given", "effective"),
    [("4096", 4096), ("[4096]", 4096), ("[16, 512, 2048]", 2048), ("4096.0", 4096)],
)
def test_llm_servings_sloppy_lengths(write, given, effective):
    path = write(LLM_SERVING.replace("seq_length: [4096]", f"seq_length: {given}", 1))
    assert load_configuration(path, other_host=True).model_config.seq_length == effective


def test_an_emulated_device_needs_no_model(write):
    runner = load_configuration(write(EMULATED)).pipeline.runner
    assert runner.emulated() == {
        "kind": "emulated",
        "name": "a device",
        "cost_model": {"fixed_ms": 22.5, "per_row_ms": 0.1},
        "token_range": (259, 32000),
    }


def test_an_emulated_device_whose_sizes_nothing_tells(write):
    text = EMULATED.replace("vocab_size: 32000", "model_cfg_path: gone.yaml")
    problem = the_problem(write(text))
    assert problem.line == 1
    assert problem.message.startswith("model_config.vocab_size is missing, ")
    assert problem.message.endswith("does not exist; set it")


def test_the_effective_configuration(write, model_dir, monkeypatch, tmp_path):
    """tests/pipeline/data/effective.yaml shows what a short file comes to."""
    path = write("pipeline: {model_dir: model, token_budget: 64}\npa_config: {num_blocks: 128}\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    effective = load_configuration(path).to_yaml().replace(str(model_dir), "/model")
    effective = effective.replace(str(tmp_path / "cache"), "/cache")
    assert effective == (DATA / "effective.yaml").read_text()


@pytest.mark.parametrize("text", [MODEL, EMULATED])
def test_the_effective_configuration_loads_as_itself(write, tmp_path, text):
    configuration = load_configuration(write(text))
    again = load_configuration(write(configuration.to_yaml(), "again.yaml"))
    assert again.to_yaml() == configuration.to_yaml()
    for name in ("model_config", "serving_config", "pa_config", "tokenizer", "pipeline"):
        assert getattr(again, name) == getattr(configuration, name)


def test_it_goes_to_other_processes(write):
    configuration = load_configuration(write(EMULATED))
    assert pickle.loads(pickle.dumps(configuration)) == configuration
    problems = problems_of(write("a: 1"))
    assert pickle.loads(pickle.dumps(ConfigurationError(list(problems)))).problems == problems


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_files_of_the_project(path):
    if path.name == "demo.yaml" and not (ROOT / "model" / "demo" / "config.json").exists():
        pytest.skip("the demo model is not there")
    configuration = load_configuration(path, other_host=True)
    assert configuration.serving_config.server_port == 8835
    if path.name == "demo.yaml":
        assert configuration.warnings == ()


def test_the_command(write, capsys):
    assert main([str(write(LLM_SERVING)), "--set", "serving_config.server_port=9000"]) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out)["serving_config"]["server_port"] == 9000
    assert err.count("warning: ") == 2
    assert err.count("no effect") == 1
    assert main([str(write(LLM_SERVING)), "--this-host"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0]) == ("", "2 mistakes in the configuration:")


def test_formats_are_those_that_there_are():
    assert (list(TOOL_FORMATS), list(REASONING_FORMATS)) == (list(TOOLS), list(REASONING))


def test_it_imports_nothing_heavy():
    code = "import sys, pipeline.config; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert not loaded & {"mindspore", "mindformers", "ipc", "uvloop", "numpy", "asyncio", "multiprocessing", "model"}


def test_a_chat_template_of_one_s_own(write, model_dir):
    (model_dir / "mine.jinja").write_text("{{ messages }}")
    base = f"pipeline: {{model_dir: {model_dir.name}, chat_template: "
    assert load_configuration(write(base + "model/mine.jinja}")).pipeline.chat_template == model_dir / "mine.jinja"
    with pytest.raises(
        ConfigurationError, match=r"pipeline.chat_template is .*, which does not exist .* a Jinja file"
    ):
        load_configuration(write(base + "nowhere.jinja}"))


@pytest.mark.parametrize(
    ("text", "drafts"),
    [
        ("", 0), ("speculation: {method: off}", 0), ("speculation: {method: 'off', max_drafts: 3}", 0),
        ("speculation: {method: ngram}", 7), ("speculation: {method: ngram, max_drafts: 3}", 3),
        ("speculation: {method: ngram}, save_logits_dir: here", 0),
    ],
)  # fmt: skip
def test_how_many_drafts_a_row_may_have(write, text, drafts):
    path = write(f"pipeline: {{model_dir: model, {text}}}\npa_config: {{num_blocks: 128}}\n")
    assert load_configuration(path).pipeline.drafts == drafts


@pytest.mark.parametrize("method", ["on", "true", "draft_model"])
def test_another_way_to_speculate(write, method):
    path = write(f"pipeline: {{model_dir: model, speculation: {{method: {method}}}}}\n")
    assert "expected one of off, ngram" in the_problem(path).message
