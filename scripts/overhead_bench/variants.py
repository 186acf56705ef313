"""What is compared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    meaning: str
    overrides: tuple[str, ...] = ()  # of RingServe's configuration
    greedy_on_device: bool = True
    replaced: bool = False  # the data path of llm-serving instead


_PLAIN, _LOGITS = "pipeline.overlap=false", "pipeline.greedy_on_device=false"

VARIANTS = (
    Variant("ringserve", "as configured by default: overlap, argmax on the device"),
    Variant("logits", "overlap; logits through the ring, sampling takes the argmax", (_LOGITS,), False),
    Variant("plain", "no overlap, argmax on the device", (_PLAIN,)),
    Variant("plain-logits", "no overlap, logits through the ring", (_PLAIN, _LOGITS), False),
    Variant("replaced", "llm-serving's data path: text over TCP, nine segments, lists", (), False, True),
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
