"""The options of ``ringserve serve``, and what a configuration becomes by them."""

from __future__ import annotations

import argparse

import pytest

from model.demo import DEMO_DIR
from pipeline.config import ConfigurationError
from pipeline.launcher.options import add_node_options, add_options, add_router_options, load

DEMO = str(DEMO_DIR)


def loaded(*words, add=add_options):
    parser = argparse.ArgumentParser()
    add(parser)
    return load(parser.parse_args(words))


def test_each_option_is_a_setting():
    config = loaded(
        DEMO, "--max-model-len", "512", "--host", "0.0.0.0", "--port", "0", "--tool-format", "hermes",
        "--served-model-name", "first", "--served-model-name", "007", "--set", "pipeline.max_rows=2",
    )  # fmt: skip
    assert (config.max_length, config.pipeline.hosts, config.serving_config.server_port) == (512, ("0.0.0.0",), 0)
    assert (config.pipeline.model_name, config.pipeline.model_aliases) == ("first", ("007",))
    assert (config.pipeline.tool_format, config.pipeline.max_rows) == ("hermes", 2)


def test_a_node_and_a_router(tmp_path):
    folder = ("--certificates", str(tmp_path))
    node = loaded(DEMO, *folder, add=add_node_options).pipeline
    assert (node.link.listen, node.nodes) == ("0.0.0.0:8836", ())
    assert loaded(DEMO, "--listen", "[::1]:9", *folder, add=add_node_options).pipeline.link.listen == "[::1]:9"
    router = loaded(DEMO, "--nodes", "a:1,b:2", *folder, add=add_router_options).pipeline
    assert (router.link.listen, router.nodes) == (None, ("a:1", "b:2"))
    assert (router.link.ca, router.link.key) == (tmp_path / "ca.pem", tmp_path / "router.key")
    assert node.link.certificate == tmp_path / "node.pem"
    later = loaded(DEMO, "--max-nodes", "3", *folder, add=add_router_options).pipeline
    assert (later.nodes, later.max_nodes) == ((), 3)
    with pytest.raises(ConfigurationError, match="no nodes: give --nodes HOST:PORT,…, or --max-nodes N"):
        loaded(DEMO, *folder, add=add_router_options)
    with pytest.raises(ConfigurationError, match=r"--nodes a,b:2: .* expected a host and a port"):
        loaded(DEMO, "--nodes", "a,b:2", *folder, add=add_router_options)


def test_they_go_before_a_file(tmp_path):
    pipeline = f"{{model_dir: {DEMO}, hosts: ['::1', 127.0.0.1], runner: {{kind: mindspore}}}}"
    text = f"pipeline: {pipeline}\nserving_config: {{server_port: 9}}"
    (tmp_path / "server.yaml").write_text(text)
    config = loaded("--config", str(tmp_path / "server.yaml"), "--host", "::1", "--port", "10", "--set",
                    "serving_config.server_port=11")  # fmt: skip
    assert (config.pipeline.hosts, config.serving_config.server_port) == (("::1",), 10)
    assert config.choices == ()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "nothing to serve: give a model's folder, or --config FILE"),
        ([DEMO, "--config", "x.yaml"], "a folder and --config: give either"),
        (["nowhere/at-all"], "does not exist; give a model's folder.*hf download ORG/NAME"),
        (["setup.py"], "setup.py is a file; give the folder"),
        (["configs/demo.yaml"], "demo.yaml is a configuration, not a model's folder; start it with --config"),
        (["configs"], "configs holds no checkpoint"),
        (
            [DEMO, "--max-model-len", "2048"],
            "--max-model-len 2048: .*the model knows 1024 positions; lower it to 1024",
        ),
        (
            [DEMO, "--max-model-len", "32k"],
            "--max-model-len 32k: .* is '32k'; expected a whole number from 1, or auto",
        ),
        ([DEMO, "--port", "-1"], "expected a whole number from 0 to 65535"),
        ([DEMO, "--engine", "vllm"], "--engine vllm: pipeline.runner.kind is 'vllm'; expected one of"),
        ([DEMO, "--engine", "emulated"], "cost_model.fixed_ms is missing"),
        ([DEMO, "--served-model-name", " "], "pipeline.model_name is ' '; expected a string"),
        ([DEMO, "--tool-format", "xml"], "--tool-format xml: pipeline.tool_format is 'xml'; expected one of auto"),
        ([DEMO, "--max-model-len", "64", "--set", "model_config.seq_length=65"], "model_config.seq_length is 65"),
    ],
)
def test_what_does_not_fit(words, expected):
    with pytest.raises(ConfigurationError, match=expected) as caught:
        loaded(*words)
    assert len(caught.value.problems) == 1
