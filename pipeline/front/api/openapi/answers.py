"""Answers of every API, as /openapi.json describes them. They are written as bytes elsewhere, without these classes;
tests hold real answers against them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Logprob = Annotated[float, Field(ge=-9999, le=0)]
Reason = Literal["stop", "length"]
CompletionId = Annotated[str, Field(pattern="^cmpl-[0-9a-f]{32}$")]
ChatId = Annotated[str, Field(pattern="^chatcmpl-[0-9a-f]{32}$")]


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorDetail(Answer):
    message: str
    type: str
    param: str | None
    code: str | None


class Error(Answer):
    error: ErrorDetail


# ---- OpenAI's ------------------------------------------------------------------------------------------------------


class CachedTokens(Answer):
    cached_tokens: Count = Field(description="Prompt tokens found in the prefix cache.")


class Usage(Answer):
    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: CachedTokens


class _OpenAI(Answer):
    created: Count = Field(description="Unix time in seconds.")
    model: str


class CompletionLogprobs(Answer):
    text_offset: list[Count]
    token_logprobs: list[Logprob]
    tokens: list[str]
    top_logprobs: list[dict[str, Logprob] | None]


class CompletionPiece(Answer):
    index: Count
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Reason | None


class CompletionChoice(CompletionPiece):
    finish_reason: Reason


class Completion(_OpenAI):
    id: CompletionId
    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: Usage


class CompletionEvent(_OpenAI):
    id: CompletionId
    object: Literal["text_completion"]
    choices: list[CompletionPiece]
    usage: Usage | None = None


class TokenLogprob(Answer):
    token: str
    logprob: Logprob
    bytes: list[Annotated[int, Field(ge=0, le=255)]]


class ChosenLogprob(TokenLogprob):
    top_logprobs: list[TokenLogprob]


class ChatLogprobs(Answer):
    content: list[ChosenLogprob]
    refusal: None


class AnsweredMessage(Answer):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Answer):
    index: Count
    message: AnsweredMessage
    logprobs: ChatLogprobs | None
    finish_reason: Reason


class ChatCompletion(_OpenAI):
    id: ChatId
    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(Answer):
    role: Literal["assistant"] = "assistant"
    content: str = ""


class ChatPiece(Answer):
    index: Count
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Reason | None


class ChatEvent(_OpenAI):
    id: ChatId
    object: Literal["chat.completion.chunk"]
    choices: list[ChatPiece]
    usage: Usage | None = None


class Model(Answer):
    id: str
    object: Literal["model"]
    created: Count
    owned_by: Literal["ringserve"]
    root: str
    parent: None
    max_model_len: int = Field(ge=1, description="Tokens of prompt and answer together.")
    permission: list[None] = Field(max_length=0)


class Models(Answer):
    object: Literal["list"]
    data: list[Model]


class Tokens(Answer):
    count: Count
    max_model_len: int = Field(ge=1)
    tokens: list[Count]
    token_strs: list[str] | None


class Text(Answer):
    prompt: str


# ---- llm-serving's -------------------------------------------------------------------------------------------------


class GeneratedToken(Answer):
    id: Count
    logprob: float | None = Field(description="The log-probability, or the raw logit if the server is set to it.")
    special: bool = Field(description="The token has no text of its own, or only a part of a character.")
    text: str


_One = Annotated[list[GeneratedToken], Field(min_length=1, max_length=1)]


class GenerateAnswer(Answer):
    generated_text: str
    finish_reason: Literal["length", "eos", "stop"]
    generated_tokens: int = Field(ge=1)
    prefill: _One
    seed: int = Field(description="The request's seed; 0 if it had none.")
    tokens: list[GeneratedToken] = Field(min_length=1)
    top_tokens: list[_One] = Field(min_length=1, max_length=1)
    details: None


class GenerateEnd(GenerateAnswer):
    """The last line, with return_full_text."""


class GenerateStep(Answer):
    """One token."""

    details: None
    generated_text: str
    tokens: GeneratedToken
    top_tokens: list[GeneratedToken]


class GenerateFailure(Answer):
    """The last line of a stream that failed."""

    details: None
    generated_text: Literal[""]
    finish_reason: Literal["predict_failed"]
    error: ErrorDetail


class _Message(Answer):
    event: Literal["message"]
    retry: Literal[30000]


class GenerateEvent(_Message):
    """A line of a stream; with return_protocol "raw" it is `data:` and the value of `data` alone."""

    data: GenerateStep | GenerateEnd | GenerateFailure


class Number(_Message):
    data: Count


class ModelInfo(Answer):
    docker_label: str
    max_batch_total_tokens: Count
    max_concurrent_requests: Count
    max_input_length: Count
    max_total_tokens: Count
    model_device_type: str
    model_dtype: str
    model_id: str
    model_pipeline_tag: Literal["text-generation"]
    version: str


# ---- of the server -------------------------------------------------------------------------------------------------


class Version(Answer):
    version: str


class Alive(Answer):
    status: Literal["alive"]


class Ready(Answer):
    status: Literal["ready"]
