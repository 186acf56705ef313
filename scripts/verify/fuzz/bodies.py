"""Bodies of requests: one that is right, with something wrong in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from pipeline.front.api.admin_routes import WeightsRequest
from pipeline.front.api.anthropic.blocks import KINDS as BLOCKS
from pipeline.front.api.anthropic.request import CountRequest, MessagesRequest
from pipeline.front.api.llm_serving.request import GenerateParameters, GenerateRequest
from pipeline.front.api.ollama.request import OllamaChat, OllamaGenerate, OllamaOptions
from pipeline.front.api.ollama.routes import OllamaShow
from pipeline.front.api.openai.chat import ChatRequest
from pipeline.front.api.openai.completions import CompletionRequest
from pipeline.front.api.responses.conversation import KINDS
from pipeline.front.api.responses.request import ResponsesRequest
from pipeline.front.api.tokenize_routes import DetokenizeRequest, TokenizeChat, TokenizeText
from scripts.verify.fuzz.values import encoded, hostile

Fields = dict[str, bytes]
"""Key and the JSON of its value."""


def _generate(random: Random) -> Fields:
    parameters = {"max_new_tokens": encoded(random.randrange(1, 6))}
    _spoil(parameters, tuple(GenerateParameters.model_fields), random)
    return {"inputs": encoded("What is a ring?"), "parameters": _object(parameters)}


def _completion(random: Random) -> Fields:
    prompt: object = "What is a ring?" if random.random() < 0.7 else [300, 301, 302]
    return {"prompt": encoded(prompt), "max_tokens": encoded(random.randrange(1, 6))}


def _chat(random: Random) -> Fields:
    return {"messages": _messages(random), "max_tokens": encoded(random.randrange(1, 6))}


def _messages(random: Random) -> bytes:
    messages: list[object] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is a ring?"},
    ]
    if random.random() < 0.3:
        messages[1] = {"role": "user", "content": [{"type": "text", "text": "What is a ring?"}]}
    spoilt = [encoded(message) for message in messages]
    if random.random() < 0.4:
        spoilt[random.randrange(2)] = _object(
            {"role": b'"user"', random.choice(("content", "role", "x")): hostile(random)}
        )
    return b"[" + b",".join(spoilt) + b"]"


def _responses(random: Random) -> Fields:
    items: list[object] = [
        {"role": "user", "content": [{"type": "input_text", "text": "What is a ring?"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": '{"word": "ring"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "A band."},
    ]
    spoilt = [encoded(item) for item in items[: random.randrange(1, 5)]]
    if random.random() < 0.4:
        kind = random.choice(tuple(KINDS))
        fields = {"type": encoded(kind), random.choice(tuple(KINDS[kind].model_fields)): hostile(random)}
        spoilt.append(_object(fields))
    return {"input": b"[" + b",".join(spoilt) + b"]", "max_output_tokens": encoded(random.randrange(1, 6))}


def _messages_input(random: Random) -> Fields:
    turns: list[tuple[str, list[object]]] = [
        ("user", [{"type": "text", "text": "What is a ring?"}]),
        ("assistant", [
            {"type": "thinking", "thinking": "Hm.", "signature": ""},
            {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"word": "ring"}},
        ]),
        ("user", [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "A band."}]),
    ]  # fmt: skip
    count = random.choice((1, 3))
    spoilt = [[encoded(block) for block in blocks] for _, blocks in turns[:count]]
    if random.random() < 0.4:
        kind = random.choice(tuple(BLOCKS))
        fields = {"type": encoded(kind), random.choice(tuple(BLOCKS[kind].model_fields)): hostile(random)}
        spoilt[-1].append(_object(fields))
    messages = [
        _object({"role": encoded(role), "content": b"[" + b",".join(blocks) + b"]"})
        for (role, _), blocks in zip(turns, spoilt, strict=False)
    ]
    return {"messages": b"[" + b",".join(messages) + b"]"}


def _anthropic(random: Random) -> Fields:
    return {**_messages_input(random), "max_tokens": encoded(random.randrange(1, 6))}


def _ollama_options(random: Random) -> bytes:
    options = {"num_predict": encoded(random.randrange(1, 6))}
    _spoil(options, tuple(OllamaOptions.model_fields), random)
    return _object(options)


def _ollama_chat(random: Random) -> Fields:
    return {"messages": _messages(random), "options": _ollama_options(random)}


def _ollama_generate(random: Random) -> Fields:
    return {"prompt": encoded("What is a ring?"), "options": _ollama_options(random)}


def _ollama_show(random: Random) -> Fields:
    return {"model": encoded("emulated")}


def _tokenize(random: Random) -> Fields:
    return {"prompt": encoded("What is a ring?")}


def _detokenize(random: Random) -> Fields:
    return {"tokens": encoded([300, 301, random.randrange(4000)])}


def _weights(random: Random) -> Fields:
    """Of a folder that is refused; while one is looked at, others are refused at once."""
    return {"folder": encoded(random.choice(("/nowhere", "/", "/dev", "relative", "/\0")))}


MODELS = ("emulated", "fine", "org/fine-1.5:v2", "fine:latest", "fin")
"""Names that may be a request's model; the last is none that there is."""

Maker = tuple[Callable[[Random], Fields], tuple[str, ...]]

MAKERS: Mapping[str, Maker] = {
    "/models/llama2/generate": (_generate, tuple(GenerateRequest.model_fields)),
    "/models/llama2/generate_stream": (_generate, tuple(GenerateRequest.model_fields)),
    "/models/llama2": (_generate, tuple(GenerateRequest.model_fields)),
    "/models/org/fine-1.5:v2/generate": (_generate, tuple(GenerateRequest.model_fields)),
    "/v1/completions": (_completion, tuple(CompletionRequest.model_fields)),
    "/v1/chat/completions": (_chat, tuple(ChatRequest.model_fields)),
    "/v1/responses": (_responses, tuple(ResponsesRequest.model_fields)),
    "/v1/messages": (_anthropic, tuple(MessagesRequest.model_fields)),
    "/v1/messages/count_tokens": (_messages_input, tuple(CountRequest.model_fields)),
    "/api/chat": (_ollama_chat, tuple(OllamaChat.model_fields)),
    "/api/generate": (_ollama_generate, tuple(OllamaGenerate.model_fields)),
    "/api/show": (_ollama_show, tuple(OllamaShow.model_fields)),
    "/tokenize": (_tokenize, tuple({**TokenizeText.model_fields, **TokenizeChat.model_fields})),
    "/detokenize": (_detokenize, tuple(DetokenizeRequest.model_fields)),
    "/admin/weights": (_weights, tuple(WeightsRequest.model_fields)),
}
"""Paths that take a body, with what makes one and the keys that it may have."""

PATHS = tuple(path for path in MAKERS for _ in range(1 if path == "/admin/weights" else 8))
"""To choose from: a folder is looked at by a process of its own, which takes a second of a CPU."""

_SCORED: Mapping[str, Fields] = {
    "/v1/completions": {"echo": b"true", "logprobs": b"3"},
    "/v1/chat/completions": {"prompt_logprobs": b"2", "stream": b"false"},
    "/models/llama2/generate": {"parameters": b'{"max_new_tokens":2,"decoder_input_details":true,"details":true}'},
}
"""What makes a prompt be scored."""


def valid(path: str, random: Random) -> bytes:
    """A body that is answered with 200 where the path exists."""
    make, _ = MAKERS[path]
    fields = make(Random(0))  # noqa: S311 - no secret
    if path.startswith("/models"):
        fields["parameters"] = encoded({"max_new_tokens": random.randrange(1, 6)})
    if "options" in fields:
        fields["options"] = encoded({"num_predict": random.randrange(1, 6)})
        fields["stream"] = encoded(random.random() < 0.5)
    if not path.startswith("/models") and random.random() < 0.5:
        fields["model"] = encoded(random.choice(MODELS[:3]))
    if path == "/models/llama2" or (path.startswith("/v1") and random.random() < 0.5):
        fields["stream"] = b"true"
    if path in _SCORED and random.random() < 0.3:
        fields |= _SCORED[path]
    return _object(fields)


def spoilt(path: str, random: Random) -> bytes:
    """A body with one to three things wrong with it, some of which may happen to be right."""
    make, keys = MAKERS[path]
    fields = make(random)
    if random.random() < 0.3:
        fields["model"] = encoded(random.choice(MODELS))
    _spoil(fields, keys, random)
    body = _object(fields)
    for _ in range(random.choice((0, 0, 0, 1, 2))):
        body = random.choice(_EDITS)(body, random)
    return body


def _spoil(fields: Fields, keys: tuple[str, ...], random: Random) -> None:
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        fields[random.choice(keys)] = hostile(random)


def _object(fields: Fields) -> bytes:
    return b"{" + b",".join(encoded(key) + b":" + value for key, value in fields.items()) + b"}"


def _truncate(body: bytes, random: Random) -> bytes:
    return body[: random.randrange(len(body) + 1)]


def _insert(body: bytes, random: Random) -> bytes:
    place = random.randrange(len(body) + 1)
    junk = random.choice(
        (b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b",", b"}", b"{", b'"', b"\\", b"//x", b"\n", b"]", b"[")
    )
    return body[:place] + junk + body[place:]


def _flip(body: bytes, random: Random) -> bytes:
    if not body:
        return body
    place = random.randrange(len(body))
    return body[:place] + bytes([body[place] ^ (1 << random.randrange(8))]) + body[place + 1 :]


def _repeat_key(body: bytes, random: Random) -> bytes:
    return body[:-1] + b"," + body[1:] if len(body) > 2 else body


def _other_top(body: bytes, random: Random) -> bytes:
    return random.choice(
        (b"", b"null", b"[]", b"5", b'"x"', b"{}", b"[" + body + b"]", body + body, body + b"\x00", b" " * 2000)
    )


def _other_encoding(body: bytes, random: Random) -> bytes:
    return body.decode("utf-8", "replace").encode(
        random.choice(("utf-16", "utf-32", "utf-16-le", "utf-7")), "replace"
    )


def _noise(body: bytes, random: Random) -> bytes:
    return random.randbytes(random.randrange(1, 300))


_EDITS = (_truncate, _insert, _flip, _flip, _repeat_key, _other_top, _other_encoding, _noise)
