"""The counters. A class named `<Role>Counter` has those of that role's stages."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

READY = 0
"""In the region of every stage: 1 while it serves, 0 while it loads, waits for rings, or is dead."""


class PreprocessCounter(IntEnum):
    """Gauges and counters of preprocess. `READY`: 1 as soon as requests are accepted."""

    READY = 0
    STEPS = 1
    WAITING = 2
    RUNNING = 3
    KV_BLOCKS_USED = 4
    KV_BLOCKS_TOTAL = 5
    CACHED_BLOCKS = 6
    PREFIX_QUERIES = 7  # tokens looked up, as in vLLM
    PREFIX_HITS = 8  # tokens found
    PREEMPTIONS = 9
    ADMITTED = 10
    CANCELLED = 11
    WAITING_FOR_PROMPT = 12  # requests whose prompt is being tokenized, or waits for that
    WAITING_CHARS = 13  # characters of those prompts
    # Requests, 0: none. If this process fails or hangs, one of them is to blame.
    IN_HAND = 14  # in the loop
    TOKENIZING = 15  # in the pool's thread for prompts of usual length
    TOKENIZING_LONG = 16  # in its thread for long ones
    ENCODING = 17  # in the thread for texts of which nothing is generated


LANES = (PreprocessCounter.TOKENIZING, PreprocessCounter.TOKENIZING_LONG, PreprocessCounter.ENCODING)
IN_HAND = (PreprocessCounter.IN_HAND, *LANES)
"""Where preprocess publishes the requests that it works on."""


class InferenceCounter(IntEnum):
    READY = 0
    STEPS = 1
    GREEDY_STEPS = 2
    REHEARSAL_NS = 3  # time of the largest step, run on padding alone before the first request
    # Steps that waited until sampling had chosen the tokens of the one before, and for what: perhaps for both.
    WAITED_FOR_DRAW = 4  # a row's token is drawn at a temperature
    WAITED_FOR_EDIT = 5  # a row's logits are changed by a penalty, a bias or a ban
    WAITED_FOR_DRAFTS = 6  # a row may carry drafts, or carried some: sampling says which, and how many were right
    # Tokens of steps in which rows draw
    DRAWN = 7  # here
    NOT_DRAWN = 8  # the candidates did not tell: sampling drew
    UNCOMPILED_STEPS = 9  # padded to a larger bucket, since the one that they fit into is not compiled
    # Compilation, on a cache line that no step writes: preprocess reads it before each step until all is compiled.
    BUCKETS = 16  # in total
    COMPILED = 17  # of them
    STEP_TOKENS = 18  # most tokens of a step that a compiled one holds
    COMPILING = 19  # 1: right now, between two steps
    STEP_SAMPLES = 20  # most sampled positions of a step that the largest compiled one holds
    STEP_DRAFTED = 21  # most tokens of a step, all of them sampled, that any compiled one holds
    NOT_DETERMINISTIC = 22  # 1: on this host a row's numbers depend on its place in a step after all


class SamplingCounter(IntEnum):
    READY = 0
    STEPS = 1
    TOKENS = 2
    FAILED_ROWS = 3
    # Host overhead of consecutive steps by the stage that caused it, in ns; the sum is StepHistogram.OVERHEAD's.
    # The time of a handover counts as the receiver's.
    OVERHEAD_PREPROCESS_NS = 4  # the descriptor was not there
    OVERHEAD_INFERENCE_NS = 5  # both were there, and the device was not started yet
    OVERHEAD_SAMPLING_NS = 6  # the tokens were not there
    # Structured output
    COMPILES = 7  # grammars made ready for a row, compiled before or not
    COMPILE_NS = 8
    MASKS = 9
    MASK_NS = 10
    SAT_OUT = 11  # steps whose token a row did not get, because its mask was not there
    SCORED_TOKENS = 12  # of prompts
    # Speculation
    ROWS = 13  # sampled in steps: TOKENS by these are the tokens of a row and step
    DRAFTED = 14
    ACCEPTED_1 = 15  # of these, the first of a row that were right; by position from here on
    ACCEPTED_2 = 16
    ACCEPTED_3 = 17
    ACCEPTED_4 = 18
    ACCEPTED_5 = 19
    ACCEPTED_6 = 20
    ACCEPTED_7 = 21
    ACCEPTED_8 = 22
    ACCEPTED_9 = 23
    ACCEPTED_10 = 24
    ACCEPTED_11 = 25
    ACCEPTED_12 = 26
    ACCEPTED_13 = 27
    ACCEPTED_14 = 28
    ACCEPTED_15 = 29


class FrontCounter(IntEnum):
    """Requests by how they ended, and their tokens."""

    READY = 0
    REQUESTS = 1
    LENGTH = 2
    EOS = 3
    STOP = 4
    FAILED = 5  # by the server, 5xx
    CANCELLED = 6  # the client went away, or did not read
    REFUSED = 7  # 4xx
    REJECTED = 8  # 429: no room
    PROMPT_TOKENS = 9
    GENERATED_TOKENS = 10
    IN_FLIGHT = 11
    DROPPED_DELTAS = 12  # of requests that had been cancelled, or of an earlier attempt of theirs
    BEAT = 13  # incremented ten times a second while the event loop runs
    RESUMED = 14  # sent again after a stage had died
    GRAMMARS = 15  # requests with structured output
    GRAMMARS_REFUSED = 16  # of these, because it can't be enforced in full
    CALLS = 17  # of tools, in answers
    DEADLINES_MISSED = 18  # requests that were broken off at their own deadline
    DEADLINES_REFUSED = 19  # and that were refused at once, since the queue was too long for it
    SPANS = 26  # of requests, given to the exporter
    SPANS_DROPPED = 27  # for lack of room: the exporter, or its collector, does not keep up


class StageState(IntEnum):
    """A stage's state, as the launcher sees it."""

    STARTING = 0  # for the first time
    OK = 1
    HUNG = 2
    RESTARTING = 3


class SupervisionCounter(IntEnum):
    """The launcher's, of each stage."""

    RESTARTS = 0
    STATE = 1  # see StageState


class ReplicaCounter(IntEnum):
    """The launcher's, of each replica."""

    GENERATION = 0  # the current set of rings; 0: none yet


class KeyCounter(IntEnum):
    """Of requests with one API key, of one front. Row 0 of the table is of requests without a key, and of keys for
    which there is no row left."""

    IDENTITY = 0  # the first 8 bytes of the key's digest; 0: the row is free
    REQUESTS = 1  # texts, however they ended
    PROMPT_TOKENS = 2
    CACHED_TOKENS = 3  # of these
    GENERATED_TOKENS = 4
    DEVICE_NS = 5  # its share of the devices' time: see `Progress`


class ExporterCounter(IntEnum):
    """The exporter's, of requests whose spans it got."""

    EXPORTED = 0  # taken by the collector
    FAILED = 1  # lost: the collector did not take them, or they could not be read


KEY_ROWS = 2048
"""Rows of a front: keys that are valid, and those that were since the start."""


GC_PAUSE_NS = 30
"""In the region of every stage, behind its own counters: its longest garbage collection, in ns."""

STAGE_COUNTERS: Mapping[str, type[IntEnum]] = MappingProxyType(
    {
        kind.__name__.removesuffix("Counter").lower(): kind
        for kind in (PreprocessCounter, InferenceCounter, SamplingCounter, FrontCounter)
    }
)
"""By role."""

_GAUGES: Mapping[type[IntEnum], tuple[int, ...]] = MappingProxyType(
    {
        PreprocessCounter: (
            PreprocessCounter.WAITING,
            PreprocessCounter.RUNNING,
            PreprocessCounter.KV_BLOCKS_USED,
            PreprocessCounter.CACHED_BLOCKS,
            PreprocessCounter.WAITING_FOR_PROMPT,
            PreprocessCounter.WAITING_CHARS,
            *IN_HAND,
        ),
        InferenceCounter: (
            InferenceCounter.BUCKETS,
            InferenceCounter.COMPILED,
            InferenceCounter.STEP_TOKENS,
            InferenceCounter.COMPILING,
            InferenceCounter.STEP_SAMPLES,
            InferenceCounter.STEP_DRAFTED,
            InferenceCounter.NOT_DETERMINISTIC,
        ),
        FrontCounter: (FrontCounter.IN_FLIGHT,),
    }
)


def gauges_of(role: str) -> tuple[int, ...]:
    """Words that describe a stage's present, and are reset when it dies. The others count on after its restart."""
    return (READY, *_GAUGES.get(STAGE_COUNTERS[role], ()))


class StepHistogram(IntEnum):
    """Parts of a step's time, and its size; sampling writes them, from the step's time stamps.

    WAIT_FOR_DESCRIPTOR + LAUNCH + DEVICE of consecutive decode steps is the time from token to token; all but DEVICE
    is host overhead. Where inference has to wait for tokens, PUBLISH + SAMPLE + FEEDBACK is the same time, seen from
    sampling; where it knows them itself, FEEDBACK is 0. SCHEDULE overlaps with the step before.
    """

    SCHEDULE = 0  # preprocess: planning and writing the descriptor
    WAIT_FOR_DESCRIPTOR = 1  # device done with the step before → descriptor taken; only where rows continue
    LAUNCH = 2  # descriptor taken → device started: for decode rows this includes waiting for their tokens
    DEVICE = 3  # device started → done
    PUBLISH = 4  # device done → sampling has the logits
    SAMPLE = 5  # logits → tokens published
    FEEDBACK = 6  # tokens published → device started on the next step; only where rows continue
    OVERHEAD = 7  # device done with the step before → started on this one; only where rows continue
    TOKENS = 8  # new tokens of the step, of prompts and of decode rows


class RequestHistogram(IntEnum):
    """Times and sizes of requests; the front writes them. The clock starts when a request has been read."""

    FRONT = 0  # a write: delta read from the ring → handed to the socket
    TTFT = 1
    ITL = 2
    E2E = 3
    QUEUE = 4  # submitted → in a row
    PREFILL = 5  # in a row → first token
    DECODE = 6  # first token → last
    INFERENCE = 7  # in a row → last token
    TPOT = 8  # DECODE per token after the first
    PROMPT_TOKENS = 9
    GENERATED_TOKENS = 10
    MAX_TOKENS = 11  # how many it asked for at most
    TEXTS = 12  # how many it asked for: prompts times n
