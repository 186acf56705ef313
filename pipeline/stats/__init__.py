"""The statistics page: one shared segment in which every stage counts what it does, for `/metrics` and the trace.

Each stage has a region of its own, 128-byte aligned, that it alone writes: plain 8-byte stores, no lock. A reader may
see a number that is one event behind another; nothing here is used to synchronise anything. Beside the counters is
a log of the last steps with their time stamps, written by sampling, which sees every step last.
"""

from pipeline.stats.buckets import Histogram, edges, scale
from pipeline.stats.counters import (
    IN_HAND,
    LANES,
    READY,
    STAGE_COUNTERS,
    ExporterCounter,
    FrontCounter,
    InferenceCounter,
    KeyCounter,
    PreprocessCounter,
    ReplicaCounter,
    RequestHistogram,
    SamplingCounter,
    StageState,
    StepHistogram,
    SupervisionCounter,
)
from pipeline.stats.page import STEP_RECORDS, EndWord, StatsHandle, StatsPage, StepColumn, open_stats, stats_layout
from pipeline.stats.reader import NO_USE, EndReading, HistogramSnapshot, RingReading, StatsReader, StepLimits, Work
from pipeline.stats.writers import (
    KEY_NAME,
    AdapterCounters,
    Counters,
    Histograms,
    KeyCounters,
    PauseMeter,
    RingEnds,
    StepLog,
    Supervision,
)

__all__ = [
    "IN_HAND",
    "KEY_NAME",
    "LANES",
    "NO_USE",
    "READY",
    "STAGE_COUNTERS",
    "STEP_RECORDS",
    "AdapterCounters",
    "Counters",
    "EndReading",
    "EndWord",
    "ExporterCounter",
    "FrontCounter",
    "Histogram",
    "HistogramSnapshot",
    "Histograms",
    "InferenceCounter",
    "KeyCounter",
    "KeyCounters",
    "PauseMeter",
    "PreprocessCounter",
    "ReplicaCounter",
    "RequestHistogram",
    "RingEnds",
    "RingReading",
    "SamplingCounter",
    "StageState",
    "StatsHandle",
    "StatsPage",
    "StatsReader",
    "StepColumn",
    "StepHistogram",
    "StepLimits",
    "StepLog",
    "Supervision",
    "SupervisionCounter",
    "Work",
    "edges",
    "open_stats",
    "scale",
    "stats_layout",
]
