"""The rings: as large as they were said to be, and large enough for the largest record of each kind."""

import os
from pathlib import Path

import numpy as np
import pytest

from model.grammar import LIMITS
from model.sampling import SamplingLimits, SamplingParams
from pipeline.config import load_configuration
from pipeline.runtime.engines import make_runner, shapes_of
from pipeline.wire.request import (
    MAX_STOP_LENGTH,
    MAX_STOPS,
    Assign,
    Request,
    longest_admit,
    unpack_request,
    unpack_row,
)
from pipeline.wire.rings import RingSet, segment_sizes
from pipeline.wire.topology import FLOWS, ONE_OF_EACH

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ["emulated_910b", "demo"])
def test_segments_have_the_sizes_that_were_foretold(name):
    config = load_configuration(ROOT / f"configs/{name}.yaml")
    shapes = shapes_of(config, make_runner(config))
    foretold = segment_sizes(ONE_OF_EACH, config, shapes)
    made = RingSet.create(ONE_OF_EACH, 0, config, shapes)
    try:
        assert {key: os.fstat(ring.segment.fd).st_size for key, ring in made.rings.items()} == foretold
        assert set(foretold) == {flow.name for flow in FLOWS}
    finally:
        made.close()


@pytest.mark.parametrize("max_length", [512, 4096, 131072])
def test_the_largest_request_fits_into_the_rows_ring(max_length):
    limits = SamplingLimits(200_000, max_length)
    tokens = np.arange(max_length, dtype=np.int32)
    params = Request(
        SamplingParams(
            logit_bias=dict.fromkeys(range(100_000, 100_000 + limits.max_biased_tokens), 1.5),
            seed=7,
            grammar="x" * LIMITS.max_text_bytes,
        ),
        max_tokens=max_length,
        stop=("\U0001f642" * MAX_STOP_LENGTH,) * MAX_STOPS,
        adapter="a" * 255,
    )
    prompt, output = (part.tobytes() for part in np.array_split(tokens, 2))
    ends = tuple(range(200_000, 200_500))
    record = Assign(2**64 - 1, 9, 1, 0, 1, max_length, 2**64 - 1, ends, params.pack(), prompt, output, 128).pack()
    assert len(record) <= longest_admit(max_length) < 2 * len(record)
    assert unpack_request(unpack_row(record).params) == params
    overrides = (f"model_config.max_generate_length={max_length}",
                 "pa_config.num_blocks=16384", f"pa_config.decode_seq_length={max_length}",
                 f"model_config.seq_length={max_length}")  # fmt: skip
    config = load_configuration(ROOT / "configs/emulated_910b.yaml", overrides)
    assert len(record) + 8 <= {flow.name: flow.size(config) for flow in FLOWS}["rows"] // 2
