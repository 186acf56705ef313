"""Tools in the form of OpenAI's chat."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.front.api.openai.tools import ToolName


@pytest.mark.parametrize("name", ["a", "a" * 128, "ä_9.b:c/d-e"])
def test_a_name(name):
    assert TypeAdapter(ToolName).validate_python(name) == name


@pytest.mark.parametrize("name", ["", "a" * 129, "a b", "a\n", "a(", "\N{EN DASH}"])
def test_what_is_no_name(name):
    with pytest.raises(ValidationError):
        TypeAdapter(ToolName).validate_python(name)
