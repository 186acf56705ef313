"""Mistakes that are seen by comparing keys, files and the host."""

from __future__ import annotations

import pytest

from pipeline.config import load_configuration
from tests.pipeline.config.helpers import EMULATED, MODEL, problems_of, the_problem


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        # one key
        ("serving_config:\n  server_port: 65536", 2, "serving_config.server_port is 65536; expected a whole number"),
        ("serving_config:\n  server_port: true", 2, "serving_config.server_port is true; expected a whole number"),
        ("serving_config:\n  agent_ports: []", 2, "is []; expected a whole number from 0 to 65535, or a list"),
        ("serving_config: {model_route: a/b}", 1, "one path segment"),
        ("model_config:\n\n  backend: 'ge'", 3, "since ge needs MindSpore Lite; set it to kbk or leave it out"),
        ("model_config: {page_attention: False}", 1, "the KV cache is always paged; set it to true"),
        ("model_config: {model_dtype: DataType.INT8}", 1, "expected one of float16, float32, bfloat16"),
        ("tokenizer: {type: Baichuan2Tokenizer}", 1, "expected one of LlamaTokenizer,"),
        ("tokenizer: {vocab_file: 3}", 1, "tokenizer.vocab_file is 3; expected a path"),
        ("model_config: [1]", 1, "model_config is [1]; expected a mapping"),
        ("pipeline: {request_timeout_s: 0}", 1, "expected a number above 0"),
        ("pipeline: {drain_timeout_s: .nan}", 1, "expected a number from 0"),
        ("pipeline: {drain_timeout_s: .inf}", 1, "expected a number from 0"),
        ("pipeline: {max_rows: 0x" + "f" * 300 + "}", 1, "a number of 1200 bits; expected a whole number"),
        ("pipeline: {drain_timeout_s: 0x" + "f" * 300 + "}", 1, "a number of 1200 bits; expected a number from 0"),
        ("tokenizer: {vocab_file: " + "x" * 5000 + "}", 1, "does not exist or is not readable"),
        ("pipeline: {max_rows: " + "1:" * 300_000 + "1}", 1, "600001 characters, too many for a number"),
        ("tokenizer: {vocab_file: ~nobody-of-this-name/x}", 1, "no such user's home"),
        ("pipeline: {model_name: !!binary aGk=}", 1, "has the tag"),
        (
            "pipeline: {model_name: !!python/object/apply:os.system [ls]}",
            1,
            "has the tag",
        ),
        ("pipeline: {max_rows: !!int many}", 1, "pipeline.max_rows is 'many', not a valid int"),
        # unknown keys
        (
            "model_config:\n  vocabsize: 3",
            2,
            "model_config.vocabsize is unknown; did you mean model_config.vocab_size?",
        ),
        ("model_config:\n  server_port: 3", 2, "it belongs elsewhere: serving_config.server_port"),
        ("pipelin: {}", 1, "did you mean pipeline?"),
        ("model_config: {zzz: 3}", 1, "keys allowed here: backend, "),
        ("? [a, b]\n: 3", 1, "a key must be a string"),
        # several keys
        ("model_config: {seq_length: 1025}", 1, "lower it to 1024"),
        ("model_config: {max_generate_length: 2000}", 1, "the model knows 1024 positions; lower it to 1024"),
        (
            "model_config:\n  max_generate_length: 512\npa_config:\n  decode_seq_length: 511",
            4,
            "make it at least 512",
        ),
        ("pipeline:\n  replicas: 2\n  save_logits_dir: there", 3, "but pipeline.replicas is 2; make it 1"),
        ("pipeline: {replicas: 65}", 1, "expected a whole number from 1 to 64"),
        ("pa_config: {num_blocks: 63}", 1, "63 x 16, less than one sequence of 1024 tokens"),
        ("pa_config: {block_size: 24}", 1, "on CPU it must be a multiple of 16"),
        ("model_config: {vocab_size: 2047}", 1, "the model's configuration says 2048"),
        ("model_config: {end_token: 2048}", 1, "outside the vocabulary of 2048 tokens"),
        ("model_config: {pad_token_id: 2048}", 1, "outside the vocabulary of 2048 tokens"),
        ("model_config:\n  decode_batch_size: 300", 2, "token_budget is 256, but 300 rows"),
        (
            "model_config: {decode_batch_size: 65, max_generate_length: 128}\npa_config:\n  num_blocks: 64",
            3,
            "65 rows",
        ),
        (
            "pipeline: {runner: {kind: openvino}}\nserving_config: {agent_ports: [1, 2]}",
            1,
            "pipeline.ranks is 2, by default one per port of serving_config.agent_ports, but the openvino engine",
        ),
        (
            "serving_config: {agent_ports: [1, 2, 3]}\npipeline: {ranks: 2}",
            2,
            "pipeline.ranks is 2, but serving_config.agent_ports lists (1, 2, 3)",
        ),
        (f"serving_config: {{agent_ports: {[*range(17)]}}}", 1, "pipeline.ranks is 17; at most 16 are possible"),
    ],
)
def test_a_mistake(write, model_dir, text, line, expected):
    problem = the_problem(write(text), [f"pipeline.model_dir={model_dir}"])
    assert problem.line == line
    assert expected in problem.message, problem.message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("pipeline.rings.step_slots=3", "must be a power of two"),
        ("pipeline.body_limit_bytes=5000000", "of which a request may take half"),
        ("pipeline.runner.name=x", "is for an emulated device"),
        ("pipeline.runner={kind: mindspore, device: Ascend}", "kind is mindspore, which computes on CPU, but"),
        ("pipeline.runner.kind=emulated", "cost_model.fixed_ms is missing"),
        ("pipeline.runner={kind: emulated, cost_model: {fixed_ms: 1}, token_range: [5, 5]}", "[first, last + 1]"),
        ("pipeline.runner={kind: emulated, cost_model: {fixed_ms: 1}, token_range: [5]}", "expected a list of 2"),
    ],
)
def test_a_mistake_in_the_pipeline_section(write, override, expected):
    assert expected in the_problem(write(MODEL), [override]).message


def test_missing_files_and_cpus_depend_on_the_host(write):
    path = write("tokenizer:\n  vocab_file: gone\npipeline:\n  model_dir: model\n  cpus:\n    sampling: [0, 4095]\n")
    found = problems_of(path)
    assert [(problem.line, problem.key) for problem in found] == [
        (2, "tokenizer.vocab_file"),
        (6, "pipeline.cpus.sampling"),
    ]
    assert load_configuration(path, other_host=True).warnings == found


def test_a_server_is_a_router_or_a_node_and_has_certificates(write):
    path = write(EMULATED)
    node, router = "pipeline.link.listen=127.0.0.1:8836", "pipeline.nodes=[10.0.0.7:8836]"
    files = [f"pipeline.link.{key}=model/x.pem" for key in ("ca", "certificate", "key")]
    for role in (node, router):
        found = [problem.message for problem in problems_of(path, [role])]
        assert [text.split(" is missing")[0] for text in found] == [each.split("=")[0] for each in files]
        load_configuration(path, [role, *files])
    assert "a server is a router or a node" in the_problem(path, [node, router, *files]).message
    twice = the_problem(path, ["pipeline.nodes=[a:1, a:1]", *files]).message
    assert "and each node once" in twice
    for many in ("pipeline.nodes=[a:1, b:1]", "pipeline.max_nodes=2"):
        assert "64 replicas are the most" in the_problem(path, [many, "pipeline.replicas=33", *files]).message
    few = the_problem(path, ["pipeline.nodes=[a:1, b:1]", "pipeline.max_nodes=1", *files]).message
    assert "expected pipeline.max_nodes (1) at most" in few
    assert load_configuration(path, [router, *files]).pipeline.max_nodes == 1
    later = load_configuration(path, ["pipeline.max_nodes=3", *files]).pipeline
    assert (later.nodes, later.is_router) == ((), True)
