"""What runs: one value, from which everything follows that depends on which stages there are and what connects them.

The launcher's processes, rings and hang rules, the regions of the statistics page, the labels in `/metrics` and the
picture on the live page are derived from it; no other table names a stage or a ring.

A **replica** is one stage of each role but the front, with one process per rank where the role has ranks, and has
rings of its own. A **front** has a lane to every replica: the rings that begin or end at a front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Self

import ipc
from pipeline.config import Configuration
from pipeline.wire.request import longest_admit
from pipeline.wire.step import Shapes, logits_layout, results_layout, step_layout, tokens_layout

_LEAST_ROW_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Role:
    """What a stage is for. `critical`: the device may wait for it between two steps."""

    name: str
    does: str
    has_ranks: bool = False
    critical: bool = False


@dataclass(frozen=True, slots=True)
class Flow:
    """What flows from one role to another. `size` is in slots of this layout, or in bytes where there is none, and
    records differ in length. `is_work`: a message is a reason to act; else it is read only when another has come."""

    name: str
    producer: str
    consumer: str
    carries: str
    size: Callable[[Configuration], int]
    layout: Callable[[Shapes], ipc.Layout] | None = None
    is_work: bool = True

    @property
    def unit(self) -> str:
        return "slots" if self.layout else "bytes"


FRONT, PREPROCESS, INFERENCE, SAMPLING = ROLES = (
    Role("front", "HTTP, streams"),
    Role("preprocess", "tokenize, schedule"),
    Role("inference", "runs the model", has_ranks=True, critical=True),
    Role("sampling", "choose, detokenize", critical=True),
)


def _row_bytes(config: Configuration) -> int:
    """A record takes at most half of a ring; a power of two."""
    return max(_LEAST_ROW_BYTES, 1 << (2 * longest_admit(config.max_length) - 1).bit_length())


def _request_bytes(config: Configuration) -> int:
    return config.pipeline.rings.request_bytes


def _reply_bytes(config: Configuration) -> int:
    return config.pipeline.rings.reply_bytes


def _step_slots(config: Configuration) -> int:
    return config.pipeline.rings.step_slots


def _logits_slots(config: Configuration) -> int:
    return config.pipeline.rings.logits_slots


FLOWS = (
    Flow(
        "requests",
        FRONT.name,
        PREPROCESS.name,
        "prompts with their parameters, texts to encode, cancellations",
        _request_bytes,
    ),
    Flow("replies", PREPROCESS.name, FRONT.name, "accepted, refused, started, encoded", _reply_bytes),
    Flow("steps", PREPROCESS.name, INFERENCE.name, "step descriptors", _step_slots, step_layout),
    Flow(
        "logits",
        INFERENCE.name,
        SAMPLING.name,
        "what each sampled position yielded: token ids, logits where needed",
        _logits_slots,
        logits_layout,
    ),
    Flow(
        "tokens",
        SAMPLING.name,
        INFERENCE.name,
        "tokens that sampling has chosen, for the next step's decode rows",
        _step_slots,
        tokens_layout,
        is_work=False,
    ),
    Flow("results", SAMPLING.name, PREPROCESS.name, "tokens, finished rows", _step_slots, results_layout),
    Flow(
        "rows",
        PREPROCESS.name,
        SAMPLING.name,
        "requests that have got a row, with their parameters",
        _row_bytes,
        is_work=False,
    ),
    Flow("deltas", SAMPLING.name, FRONT.name, "text, finish reasons, scores of prompts", _reply_bytes),
)


@dataclass(frozen=True, slots=True)
class RingSpec:
    """One ring. `front`: whose lane it belongs to; None: it stays within its replica. `key` names it in its topology,
    in segments and logs: the flow, with its numbers where there are several."""

    flow: Flow
    replica: int
    front: int | None
    key: str


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One process. `replica` is None for a front, whose `rank` is its number. `reads` and `writes` are in the order
    of FLOWS. `key` names the process in its topology, in logs and on the statistics page; `unit` names what is
    started anew together when one of it dies: a role of a replica, with all its ranks."""

    name: str
    replica: int | None
    rank: int
    reads: tuple[RingSpec, ...]
    writes: tuple[RingSpec, ...]
    key: str
    unit: str

    @property
    def rings(self) -> tuple[RingSpec, ...]:
        return (*self.reads, *self.writes)

    @property
    def is_front(self) -> bool:
        return self.replica is None

    @property
    def role(self) -> Role:
        return next(role for role in ROLES if role.name == self.name)


@dataclass(frozen=True, slots=True)
class Topology:
    """How many there are of what; everything else is derived."""

    fronts: int = 1
    replicas: int = 1
    ranks: int = 1

    @classmethod
    def of(cls, config: Configuration) -> Self:
        """One front is what a configuration can ask for so far. A router's replicas are its nodes'."""
        pipeline = config.pipeline
        return cls(replicas=0 if pipeline.is_router else pipeline.replicas, ranks=pipeline.ranks)

    @property
    def stages(self) -> tuple[StageSpec, ...]:
        """Fronts, then one replica after the other."""
        return tuple(_stages(self).values())

    @property
    def rings(self) -> tuple[RingSpec, ...]:
        return tuple(_rings(self))

    def stage(self, key: str) -> StageSpec:
        """Raises KeyError."""
        return _stages(self)[key]

    def find(self, role: Role, replica: int = 0, rank: int = 0) -> StageSpec:
        """A stage of a replica; of fronts, the one with that rank. Raises KeyError."""
        for stage in self.stages:
            if (stage.name, stage.rank) == (role.name, rank) and stage.replica in (None, replica):
                return stage
        raise KeyError(f"no {role.name} {replica}.{rank} in {self}")

    def every(self, role: Role) -> tuple[StageSpec, ...]:
        return tuple(stage for stage in self.stages if stage.name == role.name)

    def replica(self, number: int) -> tuple[StageSpec, ...]:
        """The stages of a replica, without the fronts."""
        return tuple(stage for stage in self.stages if stage.replica == number)

    def users(self, replica: int) -> tuple[StageSpec, ...]:
        """The stages that have an end of its rings: all fronts, and its own."""
        return tuple(stage for stage in self.stages if stage.replica in (None, replica))

    def unit(self, key: str) -> tuple[StageSpec, ...]:
        """What is started anew together."""
        return tuple(stage for stage in self.stages if stage.unit == key)

    def replicas_of(self, stage: StageSpec) -> tuple[int, ...]:
        """Those whose rings it has ends of."""
        return tuple(range(self.replicas)) if stage.replica is None else (stage.replica,)

    def producer(self, ring: RingSpec) -> StageSpec:
        return next(stage for stage in self.stages if ring in stage.writes)

    def consumers(self, ring: RingSpec) -> tuple[StageSpec, ...]:
        """Each has a cursor of its own, whose index is its place in here."""
        return tuple(stage for stage in self.stages if ring in stage.reads)

    def cursor(self, ring: RingSpec, stage: StageSpec) -> int:
        """Of this consumer."""
        return self.consumers(ring).index(stage)

    # ---- labels in /metrics ---------------------------------------------------------------------------------------

    def labels(self, stage: StageSpec) -> dict[str, str]:
        """A front has no replica; ranks and fronts are numbered only where there are several."""
        if stage.replica is None:
            return {"stage": stage.name} | ({"front": str(stage.rank)} if self.fronts > 1 else {})
        ranks = {"rank": str(stage.rank)} if stage.role.has_ranks and self.ranks > 1 else {}
        return {"stage": stage.name, "replica": str(stage.replica), **ranks}

    def ring_labels(self, ring: RingSpec) -> dict[str, str]:
        lane = {"front": str(ring.front)} if ring.front is not None and self.fronts > 1 else {}
        return {"ring": ring.flow.name, "replica": str(ring.replica), **lane}


ONE_OF_EACH = Topology()


def device_of(config: Configuration, replica: int, rank: int = 0) -> int:
    """The number of a rank's device, as the engine counts them: those of a replica follow each other."""
    return config.serving_config.start_device_id + replica * config.pipeline.ranks + rank


BEHIND_FRONT = tuple(role for role in ROLES if role is not FRONT)
"""Those that a replica is made of."""

STAGES = tuple(role.name for role in ROLES)
"""Names of the roles."""


def _numbers(topology: Topology, replica: int, last: int, of: int) -> Iterator[int]:
    """The replica and the number within it, where there are several."""
    if topology.replicas > 1 or of > 1:
        yield replica
    if of > 1:
        yield last


def _rings(topology: Topology) -> Iterator[RingSpec]:
    for replica in range(topology.replicas):
        for flow in FLOWS:
            is_lane = FRONT.name in (flow.producer, flow.consumer)
            fronts = topology.fronts if is_lane else 1
            for front in range(fronts):
                key = "_".join([flow.name, *map(str, _numbers(topology, replica, front, fronts))])
                yield RingSpec(flow, replica, front if is_lane else None, key)


@cache
def _stages(topology: Topology) -> Mapping[str, StageSpec]:
    rings = topology.rings
    stages = [_front(topology, number, rings) for number in range(topology.fronts)]
    for replica in range(topology.replicas):
        for role in BEHIND_FRONT:
            ranks = topology.ranks if role.has_ranks else 1
            stages += (_of_replica(topology, role, replica, rank, rings) for rank in range(ranks))
    return {stage.key: stage for stage in stages}


def _front(topology: Topology, number: int, rings: tuple[RingSpec, ...]) -> StageSpec:
    reads, writes = _ends(FRONT, [ring for ring in rings if ring.front == number])
    key = f"{FRONT.name} {number}" if topology.fronts > 1 else FRONT.name
    return StageSpec(FRONT.name, None, number, reads, writes, key, key)


def _of_replica(topology: Topology, role: Role, replica: int, rank: int, rings: tuple[RingSpec, ...]) -> StageSpec:
    """Every rank reads; the first one writes."""
    reads, writes = _ends(role, [ring for ring in rings if ring.replica == replica])
    numbers = _numbers(topology, replica, rank, topology.ranks if role.has_ranks else 1)
    unit = f"{role.name} {replica}" if topology.replicas > 1 else role.name
    key = " ".join(filter(None, [role.name, ".".join(map(str, numbers))]))
    return StageSpec(role.name, replica, rank, reads, writes if rank == 0 else (), key, unit)


def _ends(role: Role, rings: list[RingSpec]) -> tuple[tuple[RingSpec, ...], tuple[RingSpec, ...]]:
    reads = tuple(ring for ring in rings if ring.flow.consumer == role.name)
    return reads, tuple(ring for ring in rings if ring.flow.producer == role.name)
