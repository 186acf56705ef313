"""Requests in the form of Ollama's /api/chat and /api/generate. Defaults are those of Ollama.

What changes the text takes effect or is refused. What tells Ollama how to run the model, such as num_thread or
keep_alive, is accepted without effect: here that is the operator's choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Final, TypeVar

from pydantic import ConfigDict, FailFast, Field

from model.tokenizer import Message, Vocabulary
from pipeline.front.api.body import Body, Problem, Reading, cut, read, shown
from pipeline.front.api.chat.messages import numbered
from pipeline.front.api.chat.prompt import Chat, Prompted, prompt_for
from pipeline.front.api.chat.tools import NO_TOOLS, ToolUse, problems
from pipeline.front.api.fields import Kind, StopStrings, TextPrompt, also, given, integer
from pipeline.front.api.ollama.answer import CHAT, GENERATE, OllamaWriter, Place
from pipeline.front.api.openai.body import model_name, needed_tokenizer
from pipeline.front.api.openai.chat import MAX_TOP_LOGPROBS
from pipeline.front.api.openai.conversation import ChatMessage, NoMoreThanTokens
from pipeline.front.api.openai.tools import ChatTools
from pipeline.front.api.sampling import DeterministicBody, TopK, left_out, most_tokens, sampled, sampling_of, top_p
from pipeline.front.api.schema import WORDS, Schema
from pipeline.front.api.structured import OllamaFormat
from pipeline.front.delivery.job import Identity, Job
from pipeline.front.http.errors import NOT_FOUND, ApiError
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import Request

INVALID_STATUS: Final = 400
LATEST: Final = ":latest"
_MANY: Final = 2**31 - 1
_WHOLE_CONTEXT: Final = (-1, 0)  # values of repeat_last_n at which penalties are for all tokens, or off

_LEVELS: Final = ("low", "medium", "high", "max")  # of thinking

_NO_PENALTIES: Final = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
_ALIKE: Final = ("temperature", "top_k", "top_p", "min_p", "presence_penalty", "frequency_penalty", "seed")
_OPTIONS: Final = {name: name for name in _ALIKE} | {"repetition_penalty": "repeat_penalty"}
"""By the sampler's names, those of the options."""

B = TypeVar("B", bound="OllamaBody")


def tagged(name: str) -> str:
    """As Ollama lists a model."""
    return name if ":" in name else name + LATEST


def check_name(name: str, settings: FrontSettings) -> None:
    """Raises ApiError 404 for a model that is not served."""
    if name not in _names(settings):
        served = ", ".join(map(tagged, (settings.model_name, *settings.adapters)))
        message = f"model {shown(name)} not found; this server has {cut(served)}"
        raise ApiError(404, message, kind=NOT_FOUND, parameter="model", code="model_not_found")


def _names(settings: FrontSettings) -> list[str]:
    return list(dict.fromkeys([*settings.model_names, *map(tagged, settings.model_names)]))


def adapter_of(name: str | None, settings: FrontSettings) -> str:
    """As `FrontSettings.adapter`, for a name with or without a tag."""
    return next((adapter for adapter in settings.adapters if name in (adapter, tagged(adapter))), "")


_NAME = model_name(_names, lambda settings: tagged(settings.model_name))
_Count = Annotated[Annotated[int, integer(-1, _MANY)] | None, Field(description="Accepted without effect.")]
_Flag = Annotated[bool | None, Field(description="Accepted without effect.")]
_Number = Annotated[float | None, Field(description="Accepted without effect.")]


class OllamaBody(Body):
    """As in Go, what is empty counts as left out."""

    ABSENT: ClassVar[tuple[Any, ...]] = (None, "", [])

    model: Annotated[str, _NAME] | None = given(None, "The model; any other name gives 404.")


def read_ollama(kind: type[B], values: dict[str, Any], reading: Reading) -> B:
    """Raises ApiError 400; 404 for another model, whatever else is wrong."""
    name = values.get("model")
    if isinstance(name, str) and name:
        check_name(name, reading.settings)
    return read(kind, values, reading, status=INVALID_STATUS)


# ---- options -------------------------------------------------------------------------------------------------------


@also(
    {
        "tfs_z typical_p": (1,),
        "mirostat": (0,),
        "penalize_newline": (True,),
        "embedding_only logits_all vocab_only": (False,),
    }
)
class OllamaOptions(DeterministicBody):
    temperature: float = sampled("temperature", "Randomness of sampling; 0: greedy.", 0.8)
    top_k: TopK = 40
    top_p: float = top_p(0.9)
    min_p: float = sampled("min_p", "Least probability, relative to the most probable token's; 0: off.")
    repeat_penalty: float = sampled("repetition_penalty", "For tokens of prompt and answer; 1: off.")
    presence_penalty: float = sampled("presence_penalty", "For tokens that are in the answer already; 0: off.")
    frequency_penalty: float = sampled("frequency_penalty", "For tokens of the answer, per occurrence; 0: off.")
    repeat_last_n: Annotated[int, integer(-1, _MANY)] | None = given(
        None, "Tokens that penalties look at; with a penalty only -1 (all) or 0 (none, so that there is no penalty)."
    )
    seed: Annotated[int, integer()] | None = given(None, "The same seed gives the same text. Left out or -1: random.")
    stop: StopStrings = given((), "Stop strings, which end the answer.")
    num_predict: Annotated[int, most_tokens(least=-2)] = given(-1, "Most tokens to generate; 0 or less: what fits.")
    num_ctx: _Count = None
    num_keep: _Count = None
    num_batch: _Count = None
    num_gpu: _Count = None
    main_gpu: _Count = None
    num_thread: _Count = None
    draft_num_predict: _Count = None
    numa: _Flag = None
    low_vram: _Flag = None
    f16_kv: _Flag = None
    use_mmap: _Flag = None
    use_mlock: _Flag = None
    mirostat_tau: _Number = None
    mirostat_eta: _Number = None

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from super().conflicts(settings)
        last, penalties = self.repeat_last_n, (self.repeat_penalty, self.presence_penalty, self.frequency_penalty)
        if last is not None and last not in _WHOLE_CONTEXT and penalties != (1, 0, 0):
            name = "options.repeat_last_n"
            yield name, f"{name} is {last}, expected -1: penalties are for all tokens, whatever their distance"

    def request(self, settings: FrontSettings, logprobs: int | None, adapter: str) -> Request:
        values = {name: getattr(self, option) for name, option in _OPTIONS.items()}
        values |= left_out(self, settings, _OPTIONS)
        if self.repeat_last_n == 0:
            values |= _NO_PENALTIES
        sampling = sampling_of(values, settings, logprobs=logprobs)
        limited = self.num_predict > 0
        most = self.num_predict if limited else settings.max_length
        return Request(
            sampling,
            max_tokens=most,
            open_ended=not limited,
            stop=self.stop,
            adapter=adapter,
            deterministic=self.is_deterministic(settings),
        )


# ---- both paths ----------------------------------------------------------------------------------------------------


def _think(value: Any, settings: FrontSettings) -> bool | str:
    if value is not False and not (settings.reasons and (value is True or value in _LEVELS)):
        raise ValueError
    known: bool | str = value
    return known


def _think_schema(settings: FrontSettings) -> Schema:
    if not settings.reasons:
        words = "False: the model does not think before it answers"
        return {"enum": [False], "description": f"Expected: {words}.", WORDS: words}
    meaning = "Whether the model thinks before it answers, and how much; what it thinks comes as thinking."
    return {"enum": [True, False, *_LEVELS], "description": meaning}


@also({"truncate shift": (False,)})
class _Generating(OllamaBody):
    stream: bool = given(True, "Stream the answer as lines of JSON.")
    options: OllamaOptions = OllamaOptions.model_validate({})
    format: OllamaFormat = None
    think: Annotated[bool | str | None, Kind(_think, _think_schema)] = None
    keep_alive: float | str | None = given(None, "Accepted without effect: the model stays loaded.")
    logprobs: bool = given(False, "Return log-probabilities of the chosen tokens.")
    top_logprobs: Annotated[int, integer(0, MAX_TOP_LOGPROBS)] = given(
        0, "Return log-probabilities of this many most probable tokens, too; needs logprobs."
    )

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from self.options.conflicts(settings)
        if self.top_logprobs and not self.logprobs:
            yield "top_logprobs", f"top_logprobs is {self.top_logprobs}, expected 0 unless logprobs is true"

    def job(
        self,
        prompt: Prompted | None,
        place: Place,
        identity: Identity,
        tokenizer: Vocabulary | None,
        settings: FrontSettings,
        *,
        add_special: bool = False,
    ) -> Job:
        """Without a prompt it has no parts: a client asks that the model be loaded, which it is."""
        names = needed_tokenizer(tokenizer, "logprobs") if self.logprobs else None
        logprobs = self.top_logprobs if self.logprobs else None
        params = self.options.request(settings, logprobs, adapter_of(self.model, settings))
        writer = OllamaWriter(identity, self.model or tagged(settings.model_name), place, names)
        if prompt is None:
            return Job((), self.stream, writer, measured=writer.measured)
        parts = (prompt.part(params, add_special=add_special),)
        return Job(parts, self.stream, writer, prompt.form, writer.measured, prompt.reader)

    def prompted(
        self, messages: Sequence[Message], use: ToolUse, tokenizer: Vocabulary | None, settings: FrontSettings
    ) -> Prompted:
        """Raises ApiError 400."""
        effort = self.think if isinstance(self.think, str) else None
        thinks = None if self.think is None else self.think is not False
        chat = Chat(messages, use, self.format, effort=effort, thinks=thinks)
        return prompt_for(chat, tokenizer, settings, every_token=self.logprobs)


@also({"images": ()})
class OllamaMessage(ChatMessage):
    model_config = ConfigDict(json_schema_extra={})
    ABSENT: ClassVar[tuple[Any, ...]] = (None, "", [])

    content: str = given("", "Text.")
    thinking: str | None = given(None, "What an assistant wrote before its answer, for the template.")
    tool_name: str | None = given(None, "Of a tool's message: the name of the tool.")

    def for_template(self) -> Message:
        message = super().for_template()
        if self.role == "assistant" and self.thinking is not None:
            return {**message, "reasoning_content": self.thinking}
        return message if self.tool_name is None else {**message, "name": self.tool_name}


class OllamaChat(_Generating):
    tools: ChatTools = given([], "Tools that the model may call.")
    messages: Annotated[list[OllamaMessage], FailFast(), NoMoreThanTokens()] = given(
        [], "The conversation; without one nothing is generated."
    )

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from super().conflicts(settings)
        yield from problems(self.tool_use)

    @property
    def tool_use(self) -> ToolUse:
        return ToolUse(tuple(tool.tool() for tool in self.tools))


def parse_ollama_chat(
    body: dict[str, Any], identity: Identity, tokenizer: Vocabulary | None, reading: Reading
) -> Job:
    """Raises ApiError 400; 404 for an unknown model."""
    asked, settings = read_ollama(OllamaChat, body, reading), reading.settings
    messages = numbered([message.for_template() for message in asked.messages])
    prompt = asked.prompted(messages, asked.tool_use, tokenizer, settings) if messages else None
    return asked.job(prompt, CHAT, identity, tokenizer, settings)


@also({"suffix template context images": ()})
class OllamaGenerate(_Generating):
    prompt: TextPrompt | None = given(None, "The prompt; without one nothing is generated.")
    system: str | None = given(None, "A system message before the prompt.")
    raw: bool = given(False, "Take the prompt as it is, without the model's chat template.")

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from super().conflicts(settings)
        if self.raw and self.system is not None:
            yield (
                "system",
                "system is given, but raw is true: then the prompt is taken as it is; leave one of them out",
            )


def parse_ollama_generate(
    body: dict[str, Any], identity: Identity, tokenizer: Vocabulary | None, reading: Reading
) -> Job:
    """Raises ApiError 400; 404 for an unknown model."""
    asked, settings = read_ollama(OllamaGenerate, body, reading), reading.settings
    prompt = None if asked.prompt is None else Prompted(asked.prompt, form=asked.format)
    if prompt is not None and not asked.raw:
        texts = (("system", asked.system), ("user", prompt.text))
        messages = [{"role": role, "content": text} for role, text in texts if text]
        prompt = asked.prompted(messages, NO_TOOLS, tokenizer, settings)
    return asked.job(prompt, GENERATE, identity, tokenizer, settings, add_special=asked.raw)
