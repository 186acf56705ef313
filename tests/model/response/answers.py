"""Answers of each preset, with the pieces that they consist of; None: all of it is text."""

from __future__ import annotations

from model.response.format import Kind, Piece
from tests.model.response.reading import call, text, thought

NASTY = '{"a": "</tool_call> } ] \\" \\\\", "b": [{"c": [1, "]"]}, null], "<tool_call>": "é😀"}'
NESTED = '{"where": {"a": [1, 2.5, -3e4, true, null]}, "b": "}"}'

ANSWERS: dict[str, list[tuple[str, list[Piece] | None]]] = {
    "hermes": [
        ("", []),
        ("  plain < text <tool with\n\n  blanks \n", text("  plain < text <tool with\n\n  blanks \n")),
        ('{"name": "find", "arguments": {}}', text('{"name": "find", "arguments": {}}')),
        ("<think>\n a\n\nb \n</think>\n\n Hi\n", [*thought("a\n\nb"), *text("Hi\n")]),
        ("<think>\n\n</think>\n\nHi", text("Hi")),
        ("<think>cut </thi", thought("cut </thi")),
        (
            f'Let me.\n\n<tool_call>\n{{"name": "find", "arguments": {NASTY}}}\n</tool_call>\n'
            f'<tool_call>\n{{"arguments": {NASTY}, "id": "x", "name": "store"}}\n</tool_call>\n\n',
            [*text("Let me."), *call("find", NASTY), *call("store", NASTY)],
        ),
        (
            '<think>x</think>\n<tool_call>{"type": "function", "name": "find"}</tool_call> done ',
            [*thought("x"), *call("find", "{}"), *text("done ")],
        ),
        ('<tool_call>{"name": "find", "arguments": null}</tool_call>', call("find", "{}")),
        ('<tool_call>{"name": "find", "parameters": {"a": 1}}</tool_call>', call("find", '{"a": 1}')),
        (
            '<tool_call>{"name": "find", "arguments": "{\\"a\\": \\"\\\\u00e9\\"}"}</tool_call>',
            call("find", '{"a": "\\u00e9"}'),
        ),
        ('<tool_call>{"name": "find", "arguments": ""}</tool_call>', call("find", "{}")),
        ('<tool_call>{"name": "find", "arguments": "{\n}"}</tool_call>', call("find", "{\n}")),
        ('<tool_call>{"name": "find", "arguments": {}, "parameters": {"b": 2}}</tool_call>', call("find", "{}")),
        ('<tool_call>{"name": "find", "name": "store"}</tool_call>', call("find", "{}")),
        ('<tool_call>[{"name": "find"}, {"name": "store"}]</tool_call>', [*call("find", "{}"), *call("store", "{}")]),
        ('<tool_call>{"name": "find"}\n{"name": "store"}</tool_call>', [*call("find", "{}"), *call("store", "{}")]),
        ('a <tool_call>\n{"name": "rm", "arguments": {}}\n</tool_call> b', None),
        ("a \n<tool_call>\nsoon</tool_call> b ", None),
        ('<tool_call>{"name": 3}</tool_call>', None),
        ('<tool_call>{"arguments": {"name": "find"}}</tool_call>', None),
        ('<tool_call>{"arguments": {"a": 1}, "na', None),
        ('<tool_call>\n{"name": "fi', None),
        ("text <tool_call>", None),
        ('<tool_call>{"name": "find"', [(Kind.CALL_BEGIN, "find")]),
        (
            'a <tool_call>{"name": "find", "arguments": {"a": "b',
            [*text("a"), (Kind.CALL_BEGIN, "find"), (Kind.CALL_ARGUMENTS, '{"a": "b')],
        ),
        ('<tool_call>{"name": "find", "arguments": {"a": 1}</tool_call>b', [*call("find", '{"a": 1}'), *text("b")]),
        ('<tool_call>{"name": "find", "arguments": {"a": 1}}}</tool_call>b', [*call("find", '{"a": 1}'), *text("b")]),
        (
            '<tool_call>{"name": "find", "arguments": {"a": 1</tool_call> b',
            [(Kind.CALL_BEGIN, "find"), (Kind.CALL_ARGUMENTS, '{"a": 1'), *text("b")],
        ),
        ('<tool_call>{"name": "find", "arguments": {}} b', [*call("find", "{}"), *text("b")]),
        (
            '<tool_call>{"name": "find", "arguments": {"a": 1 <tool_call>{"name": "store"}</tool_call>',
            [(Kind.CALL_BEGIN, "find"), (Kind.CALL_ARGUMENTS, '{"a": 1 '), *call("store", "{}")],
        ),
        (
            '<tool_call>{"name": "find", oops <tool_call>{"name": "store"}</tool_call>',
            [(Kind.CALL_BEGIN, "find"), *call("store", "{}")],
        ),
        ('<tool_call>{"name": "find", oops </tool_call> b', [(Kind.CALL_BEGIN, "find"), *text("b")]),
        ('<tool_call>{"name": "find", oops b', [(Kind.CALL_BEGIN, "find"), *text("oops b")]),
        (
            '<tool_call>{"name": "rm", oops <tool_call>{"name": "store"}</tool_call>',
            [*text('<tool_call>{"name": "rm", oops'), *call("store", "{}")],
        ),
        (
            '<tool_call>{"name": "rm"}</tool_call>\n<tool_call>{"name": "find"}</tool_call>',
            [*text('<tool_call>{"name": "rm"}</tool_call>'), *call("find", "{}")],
        ),
    ],
    "llama3_json": [
        (f'{{"name": "find", "parameters": {NESTED}}}', call("find", NESTED)),
        ('\n <|python_tag|>{"name": "find", "parameters": {}} ', call("find", "{}")),
        (
            '{"type": "function", "name": "find", "parameters": {}}; {"name": "store", "parameters": {"a": 1}}',
            [*call("find", "{}"), *call("store", '{"a": 1}')],
        ),
        ('<think>x</think> {"name": "find", "parameters": {}}', [*thought("x"), *call("find", "{}")]),
        (' {"name": "Ann", "parameters": {"age": 3}} ', text(' {"name": "Ann", "parameters": {"age": 3}} ')),
        ('{"name": "Ann"}\n{"name": "find", "parameters": {}}', None),
        ('{"answer": {"name": "find"}}', text('{"answer": {"name": "find"}}')),
        ('{"name": "find", "parameters": {}}; and ', [*call("find", "{}"), *text("; and ")]),
        ('{"name": "find", "parameters": {}}; {"b": 1}', [*call("find", "{}"), *text('; {"b": 1}')]),
        ('Say {"name": "find", "parameters": {}}', text('Say {"name": "find", "parameters": {}}')),
        ("{", text("{")),
        ('<|python_start|>{"name": "find", "parameters": {}}<|python_end|> b', [*call("find", "{}"), *text("b")]),
    ],
    "llama_pythonic": [
        (
            "[find(a=1, b='x\\n\\'', c=[True, None, {'k': (1.50, -2)}]), store()]",
            [
                *call("find", '{"a": 1, "b": "x\\n\'", "c": [true, null, {"k": [1.50, -2]}]}'),
                *call("store", "{}"),
            ],
        ),
        ('<|python_start|>[find(a="]) <|python_end|>")]<|python_end|>', call("find", '{"a": "]) <|python_end|>"}')),
        (f"[find(a=[{'[1], ' * 100}])]", call("find", f'{{"a": [{", ".join(["[1]"] * 100)}]}}')),
        (f"[find(a={'[' * 100}{']' * 100})]", None),
        ("[1, 2, 3]", text("[1, 2, 3]")),
        ("[find all of them]", text("[find all of them]")),
        ("[find(x)]", text("[find(x)]")),
        ("[find(a=open('/etc/passwd').read())]", text("[find(a=open('/etc/passwd').read())]")),
        ("[find(a=1), rm(b=2)] ", [*call("find", '{"a": 1}'), *text(", rm(b=2)] ")]),
        ("[find(a=1", text("[find(a=1")),
        ("[find(007=1)]", text("[find(007=1)]")),
    ],
    "mistral": [
        (
            f'Text. [TOOL_CALLS] [{{"name": "find", "arguments": {NESTED}}}, {{"arguments": {{}}, "name": "store"}}]',
            [*text("Text."), *call("find", NESTED), *call("store", "{}")],
        ),
        (
            f'[TOOL_CALLS]find[ARGS]{NESTED}[TOOL_CALLS]store[CALL_ID]abc[ARGS]{{"a": "[TOOL_CALLS]"}}',
            [*call("find", NESTED), *call("store", '{"a": "[TOOL_CALLS]"}')],
        ),
        ("[TOOL_CALLS]find{}", call("find", "{}")),
        ("[TOOL_CALLS]find_all[ARGS]{}", call("find_all", "{}")),
        ("[TOOL_CALLS]find_al[ARGS]{}", text("[TOOL_CALLS]find_al[ARGS]{}")),
        ("[TOOL_CALLS]rm[ARGS]{} ", text("[TOOL_CALLS]rm[ARGS]{} ")),
        ("[TOOL_CALLS]find[ARGS]now", text("[TOOL_CALLS]find[ARGS]now")),
        ("[TOOL_CALLS]find", text("[TOOL_CALLS]find")),
        ('[TOOL_CALLS][{"name": "rm"}]', text('[TOOL_CALLS][{"name": "rm"}]')),
        ("[1, 2] [TOOL", text("[1, 2] [TOOL")),
    ],
    "qwen3_coder": [
        (
            "Now.\n\n<tool_call>\n<function=find>\n<parameter=where>\n  a < b\n</tool_call>\n\n</parameter>\n"
            "<parameter=n>\n42\n</parameter>\n</function>\n</tool_call>\n",
            [*text("Now."), *call("find", '{"where": "  a < b\\n</tool_call>\\n", "n": "42"}')],
        ),
        ("<tool_call>\n<function=find>\n</function>\n</tool_call> b", [*call("find", "{}"), *text("b")]),
        ("<tool_call><function=find><parameter=a>1</parameter></tool_call>", call("find", '{"a": "1"}')),
        (
            "<tool_call>\n<function=find>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n2",
            [(Kind.CALL_BEGIN, "find"), (Kind.CALL_ARGUMENTS, '{"a": "1"')],
        ),
        ("<tool_call>\n<function=rm>\n</function>\n</tool_call>", None),
        ("<tool_call>\n<func", None),
    ],
}
CASES = [
    (name, answer, text(answer) if pieces is None else pieces)
    for name, rows in ANSWERS.items()
    for answer, pieces in rows
]
