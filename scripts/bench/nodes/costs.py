"""What a router's front takes of its CPU, in µs: measured by `python -m scripts.bench.nodes.measure`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RouterCosts:
    """`lane`: of a request for each lane, to choose among them. `frame`: of what a node's step sends, beside its
    tokens."""

    request: float = 0.0
    lane: float = 0.0
    frame: float = 0.0
    token: float = 0.0

    def request_ms(self, lanes: int) -> float:
        return (self.request + self.lane * lanes) / 1e3

    def tokens_ms(self, tokens: int) -> float:
        return (self.frame + self.token * tokens) / 1e3


FREE = RouterCosts()
MEASURED = RouterCosts(request=736.0, lane=0.017, frame=152.0, token=7.8)
