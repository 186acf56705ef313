"""What is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from scripts.lab.arguments import named


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
_ALL = (
    Variant("ringserve", "llm-serving's API, greedy; configured by default", token_ids=True),
    Variant("plain", "the same without overlap", overrides=(_PLAIN,), token_ids=True),
    Variant("host", "all logits to the host", overrides=(_LOGITS,)),
    Variant("plain-host", "all logits to the host, without overlap", overrides=(_PLAIN, _LOGITS)),
    Variant("completions", "OpenAI's API, greedy", "completions", token_ids=True),
    Variant("sampled", "temperature 0.8, top_k 40, top_p 0.95", "sampled", greedy=False),
    Variant("replaced", "llm-serving's data path: text over TCP, nine segments, lists; greedy", replaced=True),
)
VARIANTS: Mapping[str, Variant] = MappingProxyType({variant.name: variant for variant in _ALL})
REPLACED, DEFAULT = "replaced", "ringserve"

choose = named("variant", VARIANTS)
