"""/tokenize and /detokenize, as vLLM has them."""

from __future__ import annotations

from pipeline.front.api.openapi.chat import template_parameters
from pipeline.front.api.openapi.openai import model_name
from pipeline.front.api.openapi.sampling import token_id
from pipeline.front.api.openapi.schema import (
    Schema,
    any_of,
    array,
    body,
    boolean,
    integer,
    nullable,
    one_value,
    record,
    reference,
    text,
)
from pipeline.front.settings import FrontSettings


def tokenize_schemas(settings: FrontSettings) -> dict[str, Schema]:
    either = {
        "model": model_name(settings),
        "return_token_strs": boolean("Return the text of each token, too.", default=False),
        "add_special_tokens": boolean("Add BOS. The default is true for a prompt, false for messages."),
    }
    chat = {**template_parameters(settings), "tools": one_value(([],)), "chat_template": one_value(())}
    names = nullable(array(text()))
    return {
        "TokenizeText": body({"prompt": text(), **either}, ["prompt"]),
        "TokenizeChat": body({**chat, **either}, ["messages"]),
        "TokenizeRequest": any_of(reference("TokenizeText"), reference("TokenizeChat")),
        "Tokens": record(
            {
                "count": integer("", 0),
                "max_model_len": integer("", 1),
                "tokens": array(token_id(settings)),
                "token_strs": names,
            }
        ),
        "DetokenizeRequest": body(
            {"tokens": array(token_id(settings), maxItems=settings.max_length), "model": model_name(settings)},
            ["tokens"],
        ),
        "Text": record({"prompt": text()}),
    }
