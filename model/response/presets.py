from typing import Any
from model.response.format import Calls, Mark, Opened, Reasoning, ResponseFormat, Syntax
FORMATS = ("hermes",)
REASONING_FORMATS = ("think",)
def choose_format(tokenizer: Any, tool_format: str, reasoning_format: str) -> ResponseFormat | None:
    return ResponseFormat("hermes", Reasoning((Mark("<think>"),), (Mark("</think>"),)), (Calls((Mark("<tool_call>"),), (Mark("</tool_call>"),), Syntax.JSON),))
def initial_state(form: ResponseFormat, prompt: str) -> Opened:
    return Opened.REASONING if prompt.rstrip().endswith("<think>") else Opened.NOTHING
