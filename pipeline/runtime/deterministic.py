"""Whether requests can be deterministic, by what is known of an engine; imports none."""

from __future__ import annotations

from typing import Final

from model.layout import fixed_bucket
from model.runner import RunnerFacts

_NOT_HERE: Final = (
    "deterministic is not available on this host: with these threads a row's numbers depend on its place in a step; "
    "it may be with another number (pipeline.runner.threads), or with weights in bfloat16"
)


def fixed_tokens(facts: RunnerFacts) -> int:
    """Of the steps of deterministic requests; 0: there are none."""
    bucket = fixed_bucket(facts.buckets) if facts.deterministic else None
    return 0 if bucket is None else bucket.tokens


def why_not_deterministic(facts: RunnerFacts, *, here: bool = True) -> str:
    """Why no request can be; empty: all can. `here`: it has proved true on this host, or has not been looked at."""
    if fixed_tokens(facts):
        return "" if here else _NOT_HERE
    return (
        f"deterministic is not available with this engine, {facts.name}: its numbers may depend on what else it "
        "computes; it is with the engine mindspore, without ranks"
    )
