"""Every kind of hostile request: what is sent, how, and to which server."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from scripts.bench.isolation import bodies
from scripts.bench.isolation.attacks import Attack, Churn, Repeat, Stay
from scripts.bench.isolation.bodies import Maker
from scripts.bench.isolation.stands import USUAL
from scripts.lab.arguments import named

_BYTE_S = 0.005  # between two bytes


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    title: str
    requests: Maker
    attack: Attack = field(default_factory=Repeat)
    stand: str = USUAL
    kill: str | None = None  # stage that is killed as the attack begins, beside the sink too


KINDS = (
    Kind("tokenize-words", "/tokenize, a body full of words", bodies.tokenize("lorem ipsum dolor "), Repeat(2)),
    Kind("tokenize-spaces", "/tokenize, of spaces", bodies.tokenize(" "), Repeat(2)),
    Kind("tokenize-newlines", "/tokenize, of newlines", bodies.tokenize("\n"), Repeat(2)),
    Kind("tokenize-emoji", "/tokenize, of emoji", bodies.tokenize("😀"), Repeat(2)),
    Kind("tokenize-limit", "/tokenize, as long as a prompt may be", bodies.tokenize_limit, Repeat(2)),
    Kind("tokenize-names", "/tokenize, with every token's text", bodies.tokenize_names, Repeat(2)),
    Kind("detokenize", "/detokenize, a whole context", bodies.detokenize, Repeat(2)),
    Kind("prompt-limit", "text prompt at the limit of characters", bodies.text_prompt(), Repeat(2)),
    Kind("prompt-beyond", "text prompt just beyond it", bodies.text_prompt(beyond=1), Repeat(2)),
    Kind("prompt-n128", "text prompt at the limit, n = 128", bodies.text_prompt(n=bodies.CHOICES)),
    Kind("texts-1000", "1,000 texts in one request", bodies.many_texts),
    Kind("lists-1000", "1,000 lists of token ids in one request", bodies.many_lists),
    Kind("context", "token ids that fill the context", bodies.full_context),
    Kind("scores", "10,000 token ids, scored, with 20 most probable ones each", bodies.scored_prompts),
    Kind("million-ids", "a million token ids", bodies.million_ids, Repeat(2)),
    Kind("chat-10000", "chat of 10,000 messages", bodies.many_messages, Repeat(2)),
    Kind("ollama-10000", "/api/chat of 10,000 messages", bodies.ollama_messages, Repeat(2)),
    Kind("responses-10000", "/v1/responses of 10,000 items", bodies.responses_items, Repeat(2)),
    Kind("messages-10000", "/v1/messages of 10,000 blocks", bodies.anthropic_blocks, Repeat(2)),
    Kind("chat-limit", "chat with one message at the limit", bodies.long_message, Repeat(2)),
    Kind("json-deep", "JSON, two million levels", bodies.deep, Repeat(2)),
    Kind("json-levels", "JSON, as many levels as allowed, again and again", bodies.levels, Repeat(2)),
    Kind("json-numbers", "JSON, two million numbers", bodies.numbers, Repeat(2)),
    Kind("json-string", "JSON, one string", bodies.string, Repeat(2)),
    Kind("json-escapes", "JSON, a string of escapes", bodies.escapes, Repeat(2)),
    Kind("json-keys", "JSON, as many keys as fit", bodies.keys, Repeat(2)),
    Kind("logit-bias", "logit_bias for 1,024 tokens, n = 8", bodies.bias),
    Kind("stop-ids", "1,024 stop_token_ids that min_tokens bans, n = 8", bodies.stop_ids),
    Kind("stop-texts", "64 stop strings of 1,024 characters, n = 8", bodies.stop_texts),
    Kind("schemas", "schemas as large as allowed, another one each time", bodies.many_schemas, Repeat(2)),
    Kind("masks", "grammars whose masks take long, n = 8", bodies.costly_masks, Repeat(2)),
    Kind("schemas-refused", "schemas beyond the limits", bodies.refused_schemas, Repeat(2)),
    Kind("metrics", "/metrics, 4 readers", bodies.get("/metrics"), Repeat(4)),
    Kind("openapi", "/openapi.json, 4 readers", bodies.get("/openapi.json"), Repeat(4)),
    Kind("cancel", "cancelling what is not there, 4 clients", bodies.cancel, Repeat(4)),
    Kind("kept", "answers that are not kept, 4 readers", bodies.kept, Repeat(4)),
    Kind("background", "answers in the background, 4 clients", bodies.background, Repeat(4)),
    Kind("tokenizer-info", "/tokenizer_info, 4 readers", bodies.get("/tokenizer_info"), Repeat(4)),
    Kind("usage", "/v1/usage, 4 readers", bodies.get("/v1/usage"), Repeat(4)),
    Kind("weights", "/admin/weights, folders that are refused, 2 clients", bodies.weights, Repeat(2)),
    Kind("page", "the live page, 4 readers", bodies.get("/"), Repeat(4)),
    Kind("live", "the live page's feed, 100 readers", bodies.get("/live"), Stay(100)),
    Kind(
        "slow-readers", "8 streams, read slowly", bodies.streams(8, 16, 500),
        Stay(8, part=256, pause_s=0.1, receive_buffer=2048),
    ),
    Kind(
        "byte-readers", "/openapi.json, 32 readers, a byte at a time", bodies.get("/openapi.json"),
        Stay(32, part=1, pause_s=_BYTE_S, receive_buffer=2048),
    ),
    Kind("byte-writers", "32 clients that send a byte at a time", bodies.short, Repeat(32, pause_s=_BYTE_S)),
    Kind("idle", "900 idle connections", bodies.nothing, Stay(900)),
    Kind("churn", "connections opened and closed", bodies.nothing, Churn(4)),
    Kind("waiting-context", "a prompt that fills the context waits for blocks", bodies.full_context, stand="tight"),
    Kind("preemption", "25 sequences that preempt each other", bodies.batch(25, 600, 300), stand="short of blocks"),
    Kind(
        "resumption", "64 streams of 4,000 tokens go on after sampling was killed", bodies.streams(64, 3550, 500),
        Stay(64, early=True), stand="many", kill="sampling",
    ),
    Kind(
        "resumption-preprocess", "the same after preprocess was killed", bodies.streams(64, 3550, 500),
        Stay(64, early=True), stand="many", kill="preprocess",
    ),
)  # fmt: skip

BY_NAME = MappingProxyType({kind.name: kind for kind in KINDS})

choose = named("kind of request", BY_NAME)
