"""What answers consist of, and that it does not depend on where they are cut."""

from __future__ import annotations

import sys
from random import Random

import pytest

from model.response.format import Calls, Kind, Mark, Opened, ResponseFormat, Syntax
from model.response.reader import ResponseReader
from tests.model.response.answers import CASES
from tests.model.response.reading import (
    NAMES,
    ORDINARY,
    call,
    delayed,
    marks_of,
    preset,
    read,
    read_text,
    text,
    thought,
    tokens,
)

IDS = [f"{name}-{index}" for index, (name, _, _) in enumerate(CASES)]
FORMS = ("hermes", "llama3_json", "llama_pythonic", "mistral", "qwen3_coder")


def with_tokens(name: str):
    return preset(name, added=[mark.text for mark in marks_of(preset(name))])


@pytest.mark.parametrize(("name", "answer", "pieces"), CASES, ids=IDS)
def test_reads_what_an_answer_consists_of(name, answer, pieces):
    assert read_text(preset(name), answer) == pieces


@pytest.mark.parametrize(("name", "answer", "pieces"), CASES, ids=IDS)
def test_any_cut_gives_the_same(name, answer, pieces):
    rng = Random(answer)
    format = preset(name)
    assert read(format, [(answer, ORDINARY)]) == pieces
    for _ in range(60):
        assert read(format, delayed(tokens(format, answer, rng), rng)) == pieces


@pytest.mark.parametrize(("name", "answer", "pieces"), CASES, ids=IDS)
def test_any_cut_with_marks_that_are_tokens_gives_the_same(name, answer, pieces):
    format = with_tokens(name)
    whole = read_text(format, answer)
    rng = Random(answer)
    for _ in range(60):
        assert read(format, delayed(tokens(format, answer, rng), rng)) == whole
    if not any(mark.text in piece for mark in marks_of(format) for _, piece in pieces):
        assert whole == pieces  # no mark stands where it is data


def test_random_answers_lose_nothing_and_give_the_same_at_any_cut():
    rng = Random(17)
    words = (
        "<tool_call> </tool_call> <think> </think> { [ ] text < \\ : , null [TOOL_CALLS] find[ARGS] <function=find> "
    )
    words += '<parameter=a> </parameter> </function> find( a=1 ) <|python_tag|> } "'
    bits = [*words.split(" "), " ", "\n", '{"name": "find"', ', "arguments": ', '{"a": "', '"name": "rm"']
    for _ in range(600):
        format = rng.choice((preset, with_tokens))(rng.choice(FORMS))
        answer = "".join(rng.choices(bits, k=rng.randint(1, 14)))
        whole = read_text(format, answer)
        assert read(format, delayed(tokens(format, answer, rng), rng)) == whole, (format, answer)
        assert [kind for kind, _ in whole].count(Kind.CALL_END) <= [kind for kind, _ in whole].count(Kind.CALL_BEGIN)
        if all(kind is Kind.TEXT for kind, _ in whole) and "</think>" not in answer and "<think>" not in answer:
            assert "".join(piece for _, piece in whole) == answer


class TestMarksThatAreTokens:
    def test_one_that_is_only_spelled_is_text(self):
        format = with_tokens("hermes")
        answer = 'Write <tool_call>{"name": "find"}</tool_call> and <think>.'
        assert read(format, [(sign, ORDINARY) for sign in answer]) == text(answer)

    def test_a_spelled_one_right_before_a_generated_one_is_text(self):
        format = with_tokens("hermes")
        (opens,) = format.calls[0].opens
        stream = [("<tool_call>", ORDINARY), ("<tool_call>", opens.token_id), ('{"name": "find"}', ORDINARY)]
        assert read(format, stream) == [*text("<tool_call>"), *call("find", "{}")]

    def test_also_if_both_come_at_once(self):
        format = with_tokens("hermes")
        (opens,) = format.calls[0].opens
        stream = [("", ORDINARY), ("<tool_call><tool_call>", opens.token_id), ('{"name": "find"}', ORDINARY)]
        assert read(format, stream) == [*text("<tool_call>"), *call("find", "{}")]

    def test_their_text_may_come_after_later_tokens(self):
        format = with_tokens("hermes")
        (opens,), (closes,) = format.calls[0].opens, format.calls[0].closes
        stream = [("a", ORDINARY), ("", opens.token_id), ("", ORDINARY), ("", closes.token_id)]
        stream += [('<tool_call>{"name": "find"}</tool_call>', ORDINARY), ("b", ORDINARY)]
        assert read(format, stream) == [*text("a"), *call("find", "{}"), *text("b")]

    def test_a_generated_closing_mark_within_a_string_is_data(self):
        format = with_tokens("hermes")
        answer = '<tool_call>{"name": "find", "arguments": {"a": "</tool_call>"}}</tool_call>'
        assert read_text(format, answer) == call("find", '{"a": "</tool_call>"}')

    def test_one_whose_text_never_comes_hides_no_later_one(self):
        format = with_tokens("hermes")
        (closes,) = format.reasoning.closes
        stream = [("", closes.token_id), *tokens(format, '<tool_call>{"name": "find"}</tool_call>')]
        assert read(format, stream) == call("find", "{}")

    def test_one_that_is_data_here_is_not_taken_for_a_later_one(self):
        format = with_tokens("hermes")
        (opens,), (closes,) = format.reasoning.opens, format.reasoning.closes
        stream = [("a</thi", closes.token_id), ("", opens.token_id), ("", closes.token_id)]
        stream += [("nk><think>b</think>c", ORDINARY)]
        assert read(format, stream) == [*text("a</think>"), *thought("b"), *text("c")]

    def test_the_text_that_the_format_needs_is_shown(self):
        format = preset("mistral", reasoning="none", added=["[TOOL_CALLS]", "[ARGS]", "[IMG]"])
        assert format.shown_ids == {1000, 1001}


class TestWhatIsNotAskedFor:
    ANSWER = '<think>a</think> b <tool_call>{"name": "find"}</tool_call>'

    def test_calls_are_text(self):
        pieces = [*thought("a"), *text('b <tool_call>{"name": "find"}</tool_call>')]
        assert read_text(preset("hermes"), self.ANSWER, tools=()) == pieces

    def test_reasoning_is_text(self):
        pieces = [*text("<think>a</think> b"), *call("find", "{}")]
        assert read_text(preset("hermes", reasoning="none"), self.ANSWER) == pieces
        pieces = read_text(preset("hermes", reasoning="none"), "a</think> b", opened=Opened.REASONING)
        assert pieces == text("a</think> b")

    def test_is_text_where_what_is_outside_of_marks_is_dropped(self):
        plain = preset("hermes")
        format = ResponseFormat("x", plain.reasoning, plain.calls, (Mark("</a>"),), text_opens=(Mark("<a>"),))
        assert read_text(format, "<think>x</think> - <a> b </a> - ") == [*thought("x"), *text("b")]
        assert read_text(format, '<tool_call>{"name": "find"}</tool_call>', tools=()) == text(
            '<tool_call>{"name": "find"}</tool_call>'
        )
        assert read_text(format, "- <tool_call>no</tool_call>") == text("<tool_call>no</tool_call>")


class TestOpened:
    def test_reasoning_goes_on(self):
        pieces = read_text(preset("hermes"), "\na\n</think>\n\nb", opened=Opened.REASONING)
        assert pieces == [*thought("a"), *text("b")]
        assert read_text(preset("hermes"), "cut \n", opened=Opened.REASONING) == thought("cut")

    def test_text_that_goes_on_begins_with_no_bare_call(self):
        answer = '{"name": "find", "parameters": {}}'
        assert read_text(preset("llama3_json"), answer, opened=Opened.TEXT) == text(answer)


def test_the_mark_of_the_end_is_no_part_of_the_text():
    format = ResponseFormat("x", preset("hermes").reasoning, ends=(Mark("<end>"), Mark("<eos>", 5)))
    assert read_text(format, "a \n<end>") == text("a \n")
    assert read_text(format, "<think>a<end>b<eos>") == thought("a<end>b")


def test_a_mark_that_ends_the_text_may_open_a_call():
    plain = preset("hermes")
    format = ResponseFormat("x", calls=plain.calls, ends=(Mark("<tool_call>"), Mark("<end>")))
    assert read_text(format, 'a<tool_call>{"name": "find"}</tool_call><end>') == [*text("a"), *call("find", "{}")]


def test_of_two_marks_at_one_place_the_longer_counts():
    format = ResponseFormat("x", ends=(Mark("END"), Mark("ENDING")), text_opens=(Mark("<a>"), Mark("<a>b")))
    assert read_text(format, "<a>bcENDING<a>xEND") == text("cx")


def test_names_and_arguments_come_out_as_they_come_in():
    reader = ResponseReader(preset("hermes"), tools=["find"])
    pushes = ['<tool_call>{"name": "find"', ', "arguments": {"a": "', "first ", 'last"}', "}</tool_call>"]
    assert [reader.push(part, ORDINARY) for part in pushes] == [
        [(Kind.CALL_BEGIN, "find")],
        [(Kind.CALL_ARGUMENTS, '{"a": "')],
        [(Kind.CALL_ARGUMENTS, "first ")],
        [(Kind.CALL_ARGUMENTS, 'last"}')],
        [(Kind.CALL_END, "")],
    ]


def test_text_is_held_back_only_while_it_may_be_a_mark():
    reader = ResponseReader(preset("hermes"), tools=["find"])
    assert [reader.push(part, ORDINARY) for part in ("a <tool", "box> b ", "c")] == [
        text("a"),
        text(" <toolbox> b"),
        text(" c"),
    ]


def test_a_plain_json_answer_streams():
    reader = ResponseReader(preset("llama3_json"), tools=["find"])
    assert reader.push('{"name": "Ann"', ORDINARY) == text('{"name": "Ann"')
    reader = ResponseReader(preset("llama3_json"), tools=["find"])
    assert reader.push('{"answer": ', ORDINARY) == text('{"answer":')


SCHEMA = {
    "properties": {
        "n": {"type": "integer"},
        "s": {"type": "string"},
        "o": {"type": "object"},
        "b": {"type": "boolean"},
        "m": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "t": {"type": ["string", "null"]},
        "u": {"type": ["integer", "string"]},
    }
}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("n", "42", "42"),
        ("n", "4.5", '"4.5"'),
        ("n", "many", '"many"'),
        ("s", "42", '"42"'),
        ("s", '{"a": 1}', '"{\\"a\\": 1}"'),
        ("o", '{"a": 1}', '{"a": 1}'),
        ("o", "[" * 100_000, '"' + "[" * 100_000 + '"'),
        ("b", "True", "true"),
        ("m", "null", "null"),
        ("m", "NaN", '"NaN"'),
        ("t", "null", "null"),
        ("t", "nothing", '"nothing"'),
        ("u", "42", '"42"'),
        ("other", "1", '"1"'),
    ],
)
def test_values_of_xml_have_the_types_of_the_tools_schema(key, value, expected):
    answer = f"<tool_call>\n<function=find>\n<parameter={key}>\n{value}\n</parameter>\n</function>\n</tool_call>"
    assert read(preset("qwen3_coder"), [(answer, ORDINARY)], tools={"find": SCHEMA}) == call(
        "find", f'{{"{key}": {expected}}}'
    )


def test_a_value_of_xml_that_is_never_closed_ends_at_the_generated_mark():
    format = with_tokens("qwen3_coder")
    answer = "<tool_call>\n<function=find>\n<parameter=a>\n1\n</tool_call> b "
    behind = "<tool_call><function=find></function></tool_call>"
    assert read_text(format, answer + behind) == [(Kind.CALL_BEGIN, "find"), *text("b"), *call("find", "{}")]


@pytest.mark.parametrize("syntax", list(Syntax))
def test_a_call_without_closing_marks_is_read(syntax):
    written = {
        Syntax.JSON: '{"name": "find", "arguments": {}}',
        Syntax.JSON_LIST: '[{"name": "find"}]',
        Syntax.JSON_ARGUMENTS: "find>{}",
        Syntax.XML: "find></f>",
        Syntax.PYTHONIC: "[find()]",
    }
    parameter = ("<p=", ">", "</p>")
    form = Calls((Mark("<c>"),), (), syntax, name_end=">", parameter=parameter, arguments_end="</f>")
    assert read_text(ResponseFormat("x", calls=(form,)), f"a<c>{written[syntax]} b") == [
        *text("a"),
        *call("find", "{}"),
        *text("b"),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        '<tool_call>{"name": "find", "arguments": ' + '{"a": [' * 20_000,
        '<tool_call>{"arguments": ' + "[" * 50_000,
        "[find(a=" + "[" * 50_000 + ")]",
        "[find(a=" + "{'a': " * 30_000,
    ],
)
@pytest.mark.parametrize("name", FORMS)
def test_depth_from_the_model_is_only_length(name, answer):
    assert read(preset(name), [(answer, ORDINARY)])


def test_lone_surrogates_from_escapes_are_never_given_out():
    double = '<tool_call>{"name": "find", "arguments": "{\\"a\\": \\"\\ud800\\"}"}</tool_call>'
    for name, answer in (("hermes", double), ("llama_pythonic", "[find(a='\\ud800')]")):
        for _, piece in read_text(preset(name), answer):
            piece.encode()


REPEATED = {
    "plain": "abc def " * 125,
    "almost marks": "<tool_cal <think <" * 15,
    "blanks": " \n" * 400,
    "marks without calls": "<tool_call>x" * 75,
    "calls": '<tool_call>{"name": "find", "arguments": {"a": "<"}}</tool_call>\n' * 15,
    "unknown calls": '<tool_call>{"name": "rm", "arguments": {"a": "<"}}</tool_call>\n' * 15,
    "held arguments": '<tool_call>{"arguments": {"a": "' + "<x\\n" * 200,
    "deep": '<tool_call>{"name": "find", "arguments": ' + "[<" * 400,
    "a name": '<tool_call>{"name": "' + "find" * 200,
    "keys": '<tool_call>{"id": 1, ' + '"id": 1, ' * 75,
}


class TestWork:
    """Counted, since clocks differ: calls of functions, and the text that is searched again with each push."""

    @staticmethod
    def count(name: str, answer: str, size: int) -> tuple[int, int]:
        reader = ResponseReader(preset(name), tools=NAMES)
        calls, longest = 0, 0

        def profile(_frame: object, event: str, _arg: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(profile)
        try:
            for at in range(0, len(answer), size):
                reader.push(answer[at : at + size], ORDINARY)
                longest = max(longest, len(reader._tape._text) - reader._tape._at)
            reader.finish()
        finally:
            sys.setprofile(None)
        return calls, longest

    @pytest.mark.parametrize("size", [3, 1_000_000])
    @pytest.mark.parametrize("name", FORMS)
    @pytest.mark.parametrize("answer", REPEATED.values(), ids=REPEATED.keys())
    def test_grows_with_the_length_alone(self, name, answer, size):
        once, longest = self.count(name, answer * 2, size)
        twice, longest_of_twice = self.count(name, answer * 4, size)
        assert twice < 2.2 * once + 200
        assert max(longest, longest_of_twice) < 32  # the longest mark, not the answer


def test_schemas_that_make_no_sense_say_nothing():
    """They are a client's, and checked only where a grammar is made of them."""
    said = "<tool_call>\n<function=find>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>"
    for one in (5, {"type": 5}, {"type": {}}, {"anyOf": 5}, {"oneOf": [5, {"type": []}]}, {"enum": True}):
        for schema in (one, {"properties": one}, {"properties": {"a": one}}):
            assert read_text(preset("qwen3_coder"), said, tools={"find": schema}) == call("find", '{"a": "1"}')
