"""Values of each kind, as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import Configuration, load_configuration
from pipeline.config.kinds import HOST_AND_PORT, Unsuitable
from pipeline.config.setting import settings_of
from pipeline.config.source import Located
from tests.pipeline.config.helpers import MODEL, ROOT


@pytest.mark.parametrize("given", ["DataType.FLOAT32", "float32", "FLOAT32"])
def test_llm_servings_sloppy_types(write, given):
    path = write(f"model_config: {{model_dtype: {given}, page_attention: 'True'}}\n{MODEL}")
    assert load_configuration(path).model_config.model_dtype == "float32"


def test_single_values_stand_for_lists(write):
    path = write(f"serving_config: {{agent_ports: 16002}}\nmodel_config: {{decode_batch_size: [1, 8, 4]}}\n{MODEL}")
    configuration = load_configuration(path, ["pipeline.hosts=::1", "pipeline.cpus.front=0"], other_host=True)
    assert configuration.serving_config.agent_ports == (16002,)
    assert (configuration.pipeline.hosts, configuration.pipeline.cpus.front) == (("::1",), (0,))
    assert configuration.pipeline.max_rows == 8


def test_null_takes_the_default(write):
    path = write("pipeline: {model_dir: model, max_rows: null, overlap: null, rings: null}\nserving_config:\n")
    pipeline = load_configuration(path).pipeline
    assert (pipeline.max_rows, pipeline.overlap, pipeline.rings.step_slots) == (16, True, 4)


def test_numbers_that_yaml_takes_for_texts(write):
    assert load_configuration(write(MODEL), ["pipeline.drain_timeout_s=1e1"]).pipeline.drain_timeout_s == 10.0


def test_every_default_is_of_its_own_kind():
    """A default that its own setting would refuse could not be written into a file."""
    for key, setting in settings_of(Configuration, ""):
        if setting.default is not None:
            plain = list(setting.default) if isinstance(setting.default, tuple) else setting.default
            plain = [Located(item, "", 0, ROOT) for item in plain] if isinstance(plain, list) else plain
            assert setting.kind.parse(Located(plain, "", 0, ROOT)) == setting.default, key


def _located(value):
    return Located(value, "test", 1, Path())


@pytest.mark.parametrize("text", ["10.0.0.7:8836", "node-1.example:0", "[::1]:8836", "[fe80::1%eth0]:65535"])
def test_hosts_and_ports(text):
    assert HOST_AND_PORT.parse(_located(text)) == text


@pytest.mark.parametrize(
    "value",
    ["", "8836", ":8836", "node", "node:", "node:x", "node:65536", "::1:8836", "[node]x:1", "a b:1", 8836, None],
)
def test_what_is_no_host_with_a_port(value):
    with pytest.raises(Unsuitable, match="expected a host and a port"):
        HOST_AND_PORT.parse(_located(value))
