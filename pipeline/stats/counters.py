"""What is counted, by stage, and the bucket ladders of the histograms."""

from __future__ import annotations

from enum import IntEnum

STAGES = ("front", "preprocess", "inference", "sampling")

READY = 0
"""In the region of every stage: 1 while it is at work, 0 while it loads, waits for rings, or is dead."""


class PreprocessCounter(IntEnum):
    """Gauges and counters of preprocess. `READY`: 1 as soon as requests are taken."""

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


class InferenceCounter(IntEnum):
    READY = 0
    STEPS = 1
    GREEDY_STEPS = 2
    REHEARSAL_NS = 3  # time of the largest step, tried on padding alone before the first request


class SamplingCounter(IntEnum):
    READY = 0
    STEPS = 1
    TOKENS = 2
    FAILED_ROWS = 3


class FrontCounter(IntEnum):
    """Requests by how they ended, and what they brought."""

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
    DROPPED_DELTAS = 12  # of requests that were cancelled already
    BEAT = 13  # grows ten times a second while the event loop runs
    RESUMED = 14  # sent again after a stage had died


class StageState(IntEnum):
    """What the launcher thinks of a stage."""

    STARTING = 0  # for the first time
    OK = 1
    HUNG = 2
    RESTARTING = 3


class LauncherCounter(IntEnum):
    """The launcher's own. Of each stage: how often it was started anew, and its StageState."""

    GENERATION = 0  # the current set of rings; 0: none yet
    PREPROCESS_RESTARTS = 1
    INFERENCE_RESTARTS = 2
    SAMPLING_RESTARTS = 3
    FRONT_RESTARTS = 4
    PREPROCESS_STATE = 5
    INFERENCE_STATE = 6
    SAMPLING_STATE = 7
    FRONT_STATE = 8


GC_PAUSE_NS = 31
"""In the region of every stage, behind its own counters: the longest time that collecting garbage has taken."""

GAUGES = {
    "preprocess": (
        READY,
        PreprocessCounter.WAITING,
        PreprocessCounter.RUNNING,
        PreprocessCounter.KV_BLOCKS_USED,
        PreprocessCounter.CACHED_BLOCKS,
    ),
    "inference": (READY,),
    "sampling": (READY,),
    "front": (READY, FrontCounter.IN_FLIGHT),
}
"""What describes the present of a stage, and is wrong as soon as it is dead. The rest counts on when it is back."""


class StepTime(IntEnum):
    """Parts of a step's time; sampling writes them, from the step's stamps.

    WAIT_FOR_DESCRIPTOR + LAUNCH + DEVICE of consecutive decode steps is the time from token to token; all but DEVICE
    is host overhead. Where inference has to wait for tokens, PUBLISH + SAMPLE + FEEDBACK is the same time, seen from
    sampling; where it knows them itself, FEEDBACK is 0. SCHEDULE overlaps with the step before.
    """

    SCHEDULE = 0  # preprocess: planning and writing the descriptor
    WAIT_FOR_DESCRIPTOR = 1  # device done with the step before → descriptor taken; only where rows go on
    LAUNCH = 2  # descriptor taken → device started: for decode rows this includes waiting for their tokens
    DEVICE = 3  # device started → done
    PUBLISH = 4  # device done → sampling has the logits
    SAMPLE = 5  # logits → tokens published
    FEEDBACK = 6  # tokens published → device started on the next step; only where rows go on


class RequestTime(IntEnum):
    """Histograms of the front."""

    FRONT = 0  # a write: delta read from the ring → handed to the socket
    TTFT = 1
    ITL = 2
    E2E = 3
    QUEUE = 4  # submitted → in a row


_SPLIT_US = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000)
# The ladders of vLLM (vllm/v1/metrics/loggers.py), in seconds
_TTFT_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
_ITL_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_E2E_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip


def edges_s(histogram: StepTime | RequestTime) -> tuple[float, ...]:
    """Upper edges of the buckets, in seconds; one more bucket follows them."""
    ladders = {RequestTime.TTFT: _TTFT_S, RequestTime.ITL: _ITL_S, RequestTime.E2E: _E2E_S, RequestTime.QUEUE: _E2E_S}
    if isinstance(histogram, RequestTime) and histogram in ladders:
        return ladders[histogram]
    return tuple(edge / 1e6 for edge in _SPLIT_US)
