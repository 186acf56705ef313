"""Which tools a model is shown, may call, and has to."""

import pytest

from pipeline.front.api.chat.tools import AUTO, NONE, REQUIRED, Tool, ToolUse, problems

SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
LOOK_UP = Tool("look_up", "Look a word up.", SCHEMA)
CLOCK, STRICT = Tool("clock"), Tool("strict", parameters=SCHEMA, strict=True)
PATCH = Tool("patch", custom=True, grammar=("lark", 'start: "a"'))


@pytest.mark.parametrize(
    ("use", "shown", "callable_", "bound"),
    [
        (ToolUse((LOOK_UP, CLOCK)), 2, 2, False),
        (ToolUse((LOOK_UP, CLOCK), NONE), 0, 0, False),
        (ToolUse((LOOK_UP, CLOCK), REQUIRED), 2, 2, True),
        (ToolUse((LOOK_UP, CLOCK), name="clock"), 2, 1, True),
        (ToolUse((LOOK_UP, CLOCK), allowed=("clock",)), 2, 1, True),
        (ToolUse((LOOK_UP, CLOCK), parallel=False), 2, 2, True),
        (ToolUse((LOOK_UP, STRICT)), 2, 2, True),
        (ToolUse((PATCH,)), 1, 1, True),
        (ToolUse((STRICT,), NONE), 0, 0, False),
    ],
)
def test_what_is_shown_called_and_bound_by_a_grammar(use, shown, callable_, bound):
    assert (len(use.offered), len(use.callable), use.bound) == (shown, callable_, bound)


def test_templates_get_functions_whatever_the_tool_is():
    assert LOOK_UP.for_template() == {
        "type": "function",
        "function": {"name": "look_up", "description": "Look a word up.", "parameters": SCHEMA},
    }
    assert CLOCK.for_template()["function"]["parameters"] == {"type": "object", "properties": {}}
    custom = PATCH.for_template()["function"]
    assert custom["parameters"]["required"] == ["input"]
    assert 'start: "a"' in custom["description"]


@pytest.mark.parametrize(
    ("strict", "guaranteed", "schema"),
    [(None, True, SCHEMA), (None, False, None), (True, False, SCHEMA), (False, True, None), (False, False, None)],
)
def test_which_calls_follow_the_schema(strict, guaranteed, schema):
    assert Tool("f", parameters=SCHEMA, strict=strict).shape(guaranteed=guaranteed).parameters == schema


@pytest.mark.parametrize(
    ("use", "parameter", "told"),
    [
        (ToolUse((CLOCK, CLOCK)), "tools", "two tools with the name 'clock'"),
        (ToolUse((CLOCK,), name="clocks"), "tool_choice", "names 'clocks', which is not in tools (clock)"),
        (ToolUse((CLOCK,), allowed=("a",)), "tool_choice", "names 'a'"),
        (ToolUse((), REQUIRED), "tool_choice", "demands a call, but tools has no tool"),
        (ToolUse((), name="f"), "tool_choice", "(none)"),
    ],
)
def test_what_is_wrong_is_said(use, parameter, told):
    ((where, message),) = problems(use)
    assert where == parameter
    assert told in message


def test_usual_tools_have_no_problems():
    assert not list(problems(ToolUse((LOOK_UP, CLOCK), AUTO)))
