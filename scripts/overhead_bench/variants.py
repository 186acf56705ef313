"""What is compared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    meaning: str
    api: str = "llm-serving"
    overrides: tuple[str, ...] = ()  # of RingServe's configuration
    token_ids: bool = False  # the device gives token ids instead of logits
    greedy: bool = True  # texts can be compared with those of the others
    replaced: bool = False  # the data path of llm-serving instead


_PLAIN, _LOGITS = "pipeline.overlap=false", "pipeline.greedy_on_device=false"
_OPENAI = "completions"

# llm-serving's answers hold a log-probability for each token, so its steps always bring logits to the host
VARIANTS = (
    Variant("ringserve", "llm-serving's API, greedy; configured by default"),
    Variant("plain", "the same without overlap", overrides=(_PLAIN,)),
    Variant("completions", "OpenAI's API, greedy, argmax on the device", _OPENAI, (), token_ids=True),
    Variant("completions-host", "OpenAI's API, greedy, logits to the host", _OPENAI, (_LOGITS,)),
    Variant(
        "completions-plain", "OpenAI's API, argmax on the device, no overlap", _OPENAI, (_PLAIN,), token_ids=True
    ),
    Variant("sampled", "llm-serving's API, temperature 0.8, top_k 40, top_p 0.95", "sampled", greedy=False),
    Variant("replaced", "llm-serving's data path: text over TCP, nine segments, lists; greedy", replaced=True),
)
REPLACED = "replaced"
DEFAULT = "ringserve"


def choose(names: str | None) -> tuple[Variant, ...]:
    """All, or those that are named, separated by commas. Raises ValueError for an unknown one."""
    if names is None:
        return VARIANTS
    known = {variant.name: variant for variant in VARIANTS}
    wanted = names.split(",")
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"unknown variant {unknown[0]!r}; there are {', '.join(known)}")
    return tuple(known[name] for name in wanted)
