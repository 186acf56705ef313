"""Writes tests/model/data/responses.json: what Hugging Face transformers reads in answers by response templates.

`make fixtures-response` installs transformers >= 5.13 beside the project (it needs another version than mindformers)
and runs this; the result is kept in the repository. The templates are those of the families' checkpoints; a case is a
template's name, the end of a prompt, an answer, and the message that transformers makes of both.
"""

from __future__ import annotations

import json
from typing import Any

from scripts.lab.paths import ROOT

TARGET = ROOT / "tests" / "model" / "data" / "responses.json"
CHATML = "<|im_start|>assistant\n"


def text_field(opens: str | None = None, closes: str | None = None, **others: Any) -> dict[str, Any]:
    marks = {"open": opens, "close": closes}
    return {"content": "text", **{key: mark for key, mark in marks.items() if mark is not None}, **others}


def function(name: str, arguments: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def xml(tag_pattern: str) -> dict[str, Any]:
    value_parser = {"name": "json", "args": {"allow_non_json": True}}
    return {"content": "xml-inline", "content_args": {"tag_pattern": tag_pattern, "value_parser": value_parser}}


def json_calls(**marks: Any) -> dict[str, Any]:
    transform = {"type": "function", "function": "{content}"}
    return {"content": "json", "repeats": True, "transform": transform, **marks}


def template(anchor: str, **fields: Any) -> dict[str, Any]:
    return {"defaults": {"role": "assistant"}, "start_anchor": anchor, "fields": fields}


TEMPLATES = {
    "qwen3": template(
        CHATML,
        reasoning_content=text_field("<think>", close_pattern=r"</think>\s*"),
        tool_calls=json_calls(open="<tool_call>", close_pattern=r"</tool_call>\s*"),
        content=text_field(close_pattern=r"<\|im_end\|>\s*|$"),
    ),
    "qwen3_5": template(
        CHATML,
        thinking=text_field("<think>", "</think>"),
        tool_calls={
            "open_pattern": r"\s*<tool_call>\s*<function=(?P<name>[^>\n]+)>",
            "close_pattern": r"</function>\s*</tool_call>",
            "repeats": True,
            **xml(r"<parameter=(?P<key>[^>\n]+)>\s*(?P<value>.*?)\s*</parameter>"),
            "transform": function("{name}", "{content}"),
        },
        content=text_field(close_pattern=r"\s*(?:<\|im_end\|>|<\|endoftext\|>)"),
    ),
    "glm4_moe": template(
        "<|assistant|>",
        reasoning_content=text_field("<think>", "</think>"),
        tool_calls={
            "open_pattern": r"<tool_call>(?P<name>\S+)\n?",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            **xml(r"<arg_key>(?P<key>[^<]+)</arg_key>\s*\n<arg_value>(?P<value>.*?)</arg_value>"),
            "transform": function("{name}", "{content}"),
        },
        content=text_field(close_pattern=r"<\|user\|>\s*|$"),
    ),
    "cohere": template(
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        content=text_field("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        thinking=text_field("<|START_THINKING|>", "<|END_THINKING|>"),
        tool_calls={
            "open": "<|START_ACTION|>",
            "close": "<|END_ACTION|>",
            "content": "json",
            "transform_each": True,
            "transform": function("{tool_name}", "{parameters}"),
        },
    ),
    "ernie": template(
        "Assistant:",
        thinking=text_field(None, "</think>", open_pattern=r"(?:^|<think>\s*)"),
        content=text_field("<response>\n", close_pattern=r"\n?</response>"),
        tool_calls=json_calls(open="<tool_call>", close="</tool_call>"),
    ),
    "gpt_oss": template(
        "<|start|>assistant",
        thinking=text_field("<|channel|>analysis<|message|>", "<|end|>"),
        content=text_field("<|channel|>final<|message|>", "<|end|>"),
        tool_calls={
            "open_pattern": r"<\|channel\|>commentary to=functions\.(?P<name>\w+).*?<\|message\|>",
            "close": "<|call|>",
            "repeats": True,
            "content": "json",
            "transform": function("{name}", "{content}"),
        },
    ),
    "llama3": template(
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        tool_calls={
            "open_pattern": r'\{"name":\s*"(?P<name>[^"]+)",\s*"parameters":\s*',
            "close_pattern": r"\}<\|eot_id\|>\s*",
            "repeats": True,
            "content": "json",
            "transform": function("{name}", "{content}"),
        },
        content=text_field(close_pattern=r"<\|eot_id\|>\s*"),
    ),
}

JSON_CALL = '{"name": "find", "arguments": {"where": "Paris, </tool_call> {", "days": [1, 2]}}'
QWEN = [
    "Plain text,\nin two lines.",
    "<think>\nFirst this.\n\nThen that.\n</think>\n\nThe answer.<|im_end|>",
    "<think>\n\n</think>\n\nThe answer.",
    f"Let me see.\n\n<tool_call>\n{JSON_CALL}\n</tool_call>".replace("</tool_call> {", "{"),
    '<think>a < b</think>\n<tool_call>{"arguments": {}, "name": "find"}</tool_call>\n'
    '<tool_call>\n{"name": "store", "arguments": {"é": "\\u00e9\\n", "deep": {"a": [[]]}}}\n</tool_call><|im_end|>',
]
XML_VALUES = "<parameter=where>\nParis\n</parameter>\n<parameter=days>\n[1, 2]\n</parameter>\n"
XML = [
    f"<tool_call>\n<function=find>\n{XML_VALUES}</function>\n</tool_call>",
    "<think>\nhm\n</think>\n\nNow.\n\n<tool_call>\n<function=store>\n</function>\n</tool_call>\n"
    f"<tool_call>\n<function=find>\n{XML_VALUES}</function>\n</tool_call><|im_end|>",
]
GLM = [
    "<think>hm</think>\nText.",
    "<think>hm</think>\n<tool_call>find\n<arg_key>where</arg_key>\n<arg_value>Paris</arg_value>\n"
    "<arg_key>days</arg_key>\n<arg_value>[1, 2]</arg_value>\n</tool_call>\n<tool_call>store\n</tool_call>",
]
COHERE = [
    "<|START_THINKING|>I call.<|END_THINKING|><|START_ACTION|>[\n"
    '    {"tool_call_id": "0", "tool_name": "find", "parameters": {"a": 1}},\n'
    '    {"tool_call_id": "1", "tool_name": "store", "parameters": {}}\n]<|END_ACTION|><|END_OF_TURN_TOKEN|>',
    "<|START_RESPONSE|> Said. <|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
]
ERNIE = [
    "First thoughts.\n</think>\n\n<response>\nHello!\n</response>\n</s>",
    f"Thoughts.\n</think>\n\n<tool_call>\n{JSON_CALL}\n</tool_call>\n</s>".replace("</tool_call> {", "{"),
]
GPT_OSS = [
    "<|channel|>analysis<|message|>2+2.<|end|><|start|>assistant<|channel|>final<|message|>4",
    "<|channel|>analysis<|message|>Look.<|end|><|start|>assistant<|channel|>commentary to=functions.find "
    '<|constrain|>json<|message|>{\n  "where": "Paris"\n}<|call|>',
]
LLAMA = [
    "It is sunny.<|eot_id|>",
    '{"name": "find", "parameters": {"where": "Paris"}}<|eot_id|>',
]
CASES = [
    *(("qwen3", CHATML, text) for text in QWEN),
    ("qwen3", f"{CHATML}<think>\n", "Thoughts.\n</think>\n\nText."),
    ("qwen3", f"<|im_start|>user\n<think><|im_end|>\n{CHATML}<think>\n\n</think>\n\n", "Text."),
    *(("qwen3_5", CHATML, text) for text in XML),
    *(("glm4_moe", "<|assistant|>", text) for text in GLM),
    *(("cohere", "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", text) for text in COHERE),
    *(("ernie", "Assistant:", text) for text in ERNIE),
    *(("gpt_oss", "<|start|>assistant", text) for text in GPT_OSS),
    *(("llama3", "<|start_header_id|>assistant<|end_header_id|>\n\n", text) for text in LLAMA),
]


def main() -> None:
    from transformers.utils.chat_parsing import parse_response

    cases = [
        {
            "template": name,
            "prefix": prefix,
            "text": text,
            "message": parse_response(text, TEMPLATES[name], prefix=prefix),
        }
        for name, prefix, text in CASES
    ]
    TARGET.write_text(json.dumps({"templates": TEMPLATES, "cases": cases}, indent=1, ensure_ascii=False) + "\n")
    print(f"{TARGET.name}: {len(cases)} cases, {TARGET.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
