"""Random files: a configuration, or a clear error."""

from __future__ import annotations

import re

import yaml
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from pipeline.config import Configuration, ConfigurationError, load_configuration
from pipeline.config.setting import settings_of
from tests.examples import examples
from tests.pipeline.config.helpers import MODEL

NAMES = sorted({part for key, _ in settings_of(Configuration, "") for part in key.split(".")})
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["DataType.FLOAT16", "kbk", "model", "emulated", "mindformers", "Ascend", "json"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
SECTIONS = st.sampled_from(["model_config", "serving_config", "pa_config", "tokenizer", "pipeline", "basic_inputs"])
DOCUMENTS = st.dictionaries(SECTIONS, VALUES, max_size=5).map(yaml.safe_dump)
FRAGMENTS = st.lists(
    st.sampled_from(
        ["a", ":", " ", "\n", "- ", "[", "]", "{", "}", "&a", "*a", "!!int", "!!binary", "<<", "'", '"', "|"]
    )
    | st.sampled_from(NAMES)
    | st.text(max_size=3),
    max_size=40,
).map("".join)
RANDOM = examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@RANDOM
@given(text=DOCUMENTS | FRAGMENTS, overrides=st.lists(FRAGMENTS | st.sampled_from(["pipeline.x=1"]), max_size=2))
def test_any_text_is_a_configuration_or_a_clear_error(write, text, overrides):
    path = write("")
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    check_any(path, overrides)


@RANDOM
@given(content=st.binary(max_size=60))
def test_any_bytes_are_a_configuration_or_a_clear_error(write, content):
    path = write("")
    path.write_bytes(content)
    check_any(path, ())


@RANDOM
@given(key=st.sampled_from([key for key, _ in settings_of(Configuration, "")]), value=VALUES)
def test_any_value_of_any_key_is_accepted_or_named(write, key, value):
    text = yaml.safe_dump(value, default_flow_style=True, width=1 << 20).removesuffix("\n").removesuffix("\n...")
    check_any(write(MODEL), [f"{key}={text}"])


def check_any(path, overrides):
    """A Configuration that loads as itself, or a ConfigurationError that says something; nothing else."""
    configuration, error = load_or_error(path, overrides)
    if configuration is not None:
        again, _ = load_or_error(path.with_name("again.yaml"), (), configuration.to_yaml())
        assert again is not None
        assert again.to_yaml() == configuration.to_yaml()
    else:
        assert re.match(r"(a mistake|\d+ mistakes) in the configuration:\n  ", str(error))
        assert all(problem.message for problem in error.problems)


def load_or_error(path, overrides, text=None):
    if text is not None:
        path.write_text(text, encoding="utf-8")
    try:
        return load_configuration(path, overrides, other_host=True), None
    except ConfigurationError as error:
        return None, error
