"""The adapters that requests may name, and where each begins in the prefix cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.preprocess.blocks import ROOT, Digest


@dataclass(frozen=True, slots=True)
class Adapter:
    """`root`: where its hash chains begin, so that prompts of different adapters share no block."""

    slot: int  # in the engine, from 1; 0: none
    root: Digest

    def root_of(self, *, deterministic: bool) -> Digest:
        """Requests that are deterministic share blocks with each other alone: others' were computed in any shape."""
        return self.root + _DETERMINISTIC if deterministic else self.root


_DETERMINISTIC: Final = b"deterministic"
BASE: Final = Adapter(0, ROOT)
"""The base model's own weights."""


def adapters_of(fingerprints: Mapping[str, Digest]) -> dict[str, Adapter]:
    """By name, in the order of their slots; the empty name is `BASE`."""
    slots = enumerate(fingerprints.items(), 1)
    return {"": BASE, **{name: Adapter(slot, fingerprint) for slot, (name, fingerprint) in slots}}
