"""How long the front takes to read a typical body, from its bytes to the job: a part of the time to the first token.

    python -m scripts.bench.bodies

To compare two commits, run it in a checkout of each, in turns.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import orjson

from model.demo import DEMO_DIR
from model.tokenizer import load_tokenizer
from pipeline.front.api.body import Reading
from pipeline.front.api.json_body import parse_object
from pipeline.front.api.llm_serving.request import parse_llm_serving
from pipeline.front.api.openai.chat import parse_chat
from pipeline.front.api.openai.completions import parse_completion
from pipeline.front.delivery.job import Identity
from pipeline.front.settings import FrontSettings

TEXT = "It was a bright cold day in April. " * 20
SAMPLING: dict[str, Any] = {"max_tokens": 128, "temperature": 0.7, "top_p": 0.9, "stop": ["\n\n"], "stream": True}
CHAT = [("system", "Be brief."), ("user", TEXT), ("assistant", "Yes."), ("user", "Why?")]
TIMES, REPEATS = 2000, 7


def calls() -> dict[str, Callable[[], object]]:
    tokenizer, identity = load_tokenizer(DEMO_DIR), Identity("0" * 32, 0)
    settings = FrontSettings(
        model_name="m", vocab_size=32_000, max_length=4096, max_prompt=4000, max_rows=128, max_queue=1000
    )
    reading = Reading(settings)
    messages = [{"role": role, "content": content} for role, content in CHAT]
    parameters = {"max_new_tokens": 128, "do_sample": "True", "return_full_text": "True", "top_k": 3}
    completion = orjson.dumps({"model": "m", "prompt": TEXT, **SAMPLING})
    chat = orjson.dumps({"model": "m", "messages": messages, **SAMPLING})
    generate = orjson.dumps({"inputs": TEXT, "parameters": parameters})
    return {
        "completions": lambda: parse_completion(parse_object(completion), identity, tokenizer, reading),
        "chat": lambda: parse_chat(parse_object(chat), identity, tokenizer, reading),
        "llm-serving": lambda: parse_llm_serving(parse_object(generate), None, reading),
    }


def main() -> None:
    for name, call in calls().items():
        best = min(timeit.repeat(call, number=TIMES, repeat=REPEATS)) / TIMES
        print(f"{name}: {best * 1e6:.1f} µs")


if __name__ == "__main__":
    main()
