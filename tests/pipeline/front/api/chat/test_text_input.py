"""The text of a custom tool's call, wherever its arguments are cut."""

import json
import random

import pytest

from pipeline.front.api.chat.text_input import TextInput

TEXTS = ["", "plain", 'a "quoted" \\ line\n', "é 😀 \x01", "\\u0041 is no escape", "ends with a backslash \\"]


def decoded(arguments, rng, longest):
    reader, texts, at = TextInput(), [], 0
    while at < len(arguments):
        size = rng.randint(1, longest)
        texts.append(reader.push(arguments[at : at + size]))
        at += size
    return "".join(texts) + reader.finish()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_any_cut_gives_the_same_text(text, ascii_only):
    rng, arguments = random.Random(7), json.dumps({"input": text}, ensure_ascii=ascii_only)
    assert {decoded(arguments, rng, longest) for longest in (1, 2, 3, 7, 100) for _ in range(20)} == {text}


def test_text_comes_before_its_end_does():
    reader = TextInput()
    assert reader.push('{"input": "so far') == "so far"


@pytest.mark.parametrize("arguments", ["{}", '{"other": "x"}', '{"other": "' + "x" * 500 + '"}', "not json"])
def test_other_arguments_come_as_they_are(arguments):
    assert decoded(arguments, random.Random(1), 9) == arguments


def test_half_a_character_is_replaced():
    assert decoded('{"input": "\\ud83dx"}', random.Random(1), 3) == "\ufffdx"
