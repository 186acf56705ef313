"""One client cannot hurt another: what bench_isolation.py measures, asked here as progress and not as time.

Not here: the kinds that need a server of their own (blocks that run short, stages that are killed).
"""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from model.emulated import expected_tokens
from pipeline.config import load_configuration
from pipeline.runtime.engines import make_runner
from pipeline.runtime.tokenizer import open_tokenizer
from scripts.bench.isolation.figures import FIGURES
from scripts.bench.isolation.kinds import BY_NAME, KINDS
from scripts.bench.isolation.measure import PROMPT, Target, measure, restarts_of, take_turn, workers
from scripts.bench.isolation.stands import EMULATED, USUAL, stands_of
from tests.scripts.bench.isolation.progress import progress

STEP_MS, TOKENS = 5, 60
ATTACK_S, TRIES = 0.5, 3
DEVICE = (
    "pipeline.token_budget=4096",
    f"pipeline.runner.cost_model.fixed_ms={STEP_MS}",
    "pipeline.runner.cost_model.per_token_ms=0",  # what is asked is whether the host stands still
    "pipeline.runner.cost_model.per_cached_token_ms=0",
)


@pytest.fixture(scope="module")
def stand():
    return stands_of(EMULATED, DEVICE)[USUAL]


@pytest.fixture(scope="module")
def undisturbed(stand):
    config = load_configuration(stand.file, stand.overrides)
    runner = make_runner(config)
    tokenizer = open_tokenizer(config, runner.facts.vocab_size)
    return tokenizer.decode(expected_tokens(tokenizer.encode(PROMPT), TOKENS, runner.settings))


@pytest.fixture(scope="module")
def work():
    with workers() as made:
        yield made


@pytest.fixture(scope="module")
def target(stand, tmp_path_factory):
    with ExitStack() as stack:
        yield Target(stand, tmp_path_factory.mktemp("isolation"), stack)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.stand == USUAL], ids=lambda kind: kind.name)
def test_a_stream_goes_on_beside_hostile_requests(kind, target, work, undisturbed):
    """Tokens come while requests are being worked off; the stream is whole and has its text, and nothing restarts."""
    server = target.server()
    pids, restarts = server.stages(), restarts_of(server)
    seen = []
    while not seen or not (seen[-1].goes_on or len(seen) == TRIES):  # another burst: the machine has other work, too
        turn = take_turn(work, server, kind, target.stand, server.port, ATTACK_S, tokens=TOKENS)
        observed = turn.observed
        assert not [stream.error for stream in observed.streams if stream.error]
        assert {stream.text for stream in observed.streams if stream.ended} == {undisturbed}
        assert all(stream.ended for stream in observed.streams[:-1])
        assert not [probe.error for probe in observed.health if probe.error]
        assert target.server() is server, server.log_text()
        assert (server.stages(), restarts_of(server)) == (pids, restarts), server.log_text()
        seen.append(progress(observed.streams, turn.campaign.sent, 4 * STEP_MS / 1e3))
    assert seen[-1].goes_on, seen


def test_what_is_measured_can_be_written_as_json(target, work):
    (row,) = measure([BY_NAME["metrics"]], target, work, 1, 0.2)
    written = json.loads(json.dumps(row.as_json()))
    assert (written["kind"], written["broken"]) == ("metrics", "")
    assert set(written["differences"]) == set(FIGURES)
    (only,) = written["rounds"]
    assert only["statuses"]["200"] > 0
    assert (only["attack"]["failed"], only["restarts"], only["lingers"]) == (0, 0, False)
