"""The simulator of replicas behind a front: its times and caches, by hand; and what it says of the router."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.emulated import CostModel
from scripts.bench.routing import __main__ as command
from scripts.bench.routing import cases, pick_time
from scripts.bench.routing.policies import POLICIES, Make, Policy
from scripts.bench.routing.replica import ASCEND, Device
from scripts.bench.routing.requests import Asked, Chats, Closed, Independent, Load
from scripts.bench.routing.simulation import Death, Figures, Fleet, Simulation, figures

SIMPLE = Device(CostModel(fixed_ms=10.0, per_token_ms=1.0), rows=2, token_budget=64, blocks=64)
CHATS = Chats(0.9, 16.0)


def asked(number: int, at: float, prompt: int, output: int) -> Asked:
    return Asked(number, at, number, np.arange(prompt, dtype=np.int32), np.zeros(output, np.int32), "x" * prompt)


def fixed(*requests: Asked) -> Load:
    def load(replicas: int, seed: int) -> Iterator[Asked]:
        yield from requests

    return load


def run(fleet: Fleet, load: Load, make: Make = POLICIES["round robin"]) -> list[Asked]:
    return sorted(Simulation(fleet, make).run(load, 1), key=lambda one: one.number)


def test_a_request_alone_takes_the_time_of_its_steps() -> None:
    (one,) = run(Fleet(1, SIMPLE), fixed(asked(0, 5.0, 100, 3)))
    assert one.first - one.arrival == (10 + 64) + (10 + 36)
    assert one.end - one.first == 2 * (10 + 1)
    assert (one.made, one.cached) == (3, 0)


def test_prompts_share_cached_blocks_and_the_budget() -> None:
    first, second = run(Fleet(1, SIMPLE), fixed(asked(0, 0.0, 40, 1), asked(1, 100.0, 40, 1)))
    assert (first.cached, second.cached) == (0, 32)
    assert second.first - second.arrival == 10 + 8


def test_a_request_beyond_the_rows_waits_for_one() -> None:
    every = run(Fleet(1, SIMPLE), fixed(*(asked(n, 0.0, 8, 4) for n in range(3))))
    assert every[2].first > min(one.end for one in every[:2])


def test_a_request_that_arrives_in_a_step_joins_the_next_that_is_not_planned() -> None:
    """As in the server, where one is planned ahead."""
    long, late = run(Fleet(1, SIMPLE), fixed(asked(0, 0.0, 8, 9), asked(1, 20.0, 8, 1)))
    assert long.first == 18.0
    assert late.first == 18 + 11 + 11 + (10 + 1 + 8)  # the steps under way at 20 ms, then its own


def test_a_slow_replica_takes_so_much_longer() -> None:
    times = [run(Fleet(1, SIMPLE, slowness=(pace,)), fixed(asked(0, 0.0, 100, 3)))[0].end for pace in (1.0, 2.5)]
    assert times[1] == pytest.approx(2.5 * times[0])


def test_what_was_on_a_replica_that_dies_goes_on_elsewhere() -> None:
    fleet = Fleet(2, SIMPLE, deaths=(Death(0, 0.1, 0.2),))
    every = run(fleet, fixed(*(asked(n, 0.0, 20, 30) for n in range(4)), asked(9, 500.0, 20, 1)))
    assert [one.made for one in every] == [30, 30, 30, 30, 1]
    undisturbed = run(Fleet(2, SIMPLE), fixed(*(asked(n, 0.0, 20, 30) for n in range(4))))
    assert [one.first for one in every[:4]] == [one.first for one in undisturbed]  # at 100 ms all have begun
    assert every[0].end > undisturbed[0].end


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("load", [Independent(5.0, 2.0), Chats(0.5, 6.0)], ids=["independent", "chats"])
def test_every_request_is_answered_in_full(load: Load, policy: str) -> None:
    answered(Simulation(Fleet(3), POLICIES[policy]).run(load, 1), 8)


def test_clients_that_ask_again_at_once_get_all_answers() -> None:
    answered(Simulation(Fleet(2, replace(ASCEND, rows=128)), POLICIES["cost"]).run(Closed(200), 1), 1500)


def answered(done: Sequence[Asked], least: int) -> None:
    assert len({one.number for one in done}) == len(done) >= least
    assert all(one.made == len(one.output) and one.arrival < one.first <= one.end for one in done)
    assert all(0 <= one.cached < len(one.prompt) for one in done)


class Apart(Policy):
    """Everything to the last replica."""

    def choose(self, asked: Asked, up: list[int]) -> int:  # type: ignore[override]
        return up[-1]


def test_conversations_do_not_depend_on_who_serves_them() -> None:
    def heard(make: Make) -> set[tuple[int, bytes, int]]:
        done = Simulation(Fleet(2), make).run(Chats(0.4, 10.0), 3)
        return {(one.number, one.prompt.tobytes(), len(one.output)) for one in done}

    assert heard(lambda n, _: Apart(n)) == heard(POLICIES["cost"])


def test_turns_find_what_was_said_before_in_the_cache() -> None:
    one = figures(Fleet(1), POLICIES["cost"], Chats(0.1, 60.0, systems=1), 1)
    assert one.hits > 0.85


def test_figures() -> None:
    done = [replace(asked(n, 0.0, 10, 11), first=10.0 * n, end=10.0 * n + 100, cached=5) for n in range(101)]
    found = Figures.of(done)
    assert (found.ttft_p50, found.ttft_p99, found.tpot_p50, found.hits) == (500, 990, 10, 0.5)
    assert (found.seconds, found.tokens_s) == (1.1, pytest.approx(101 * 11 / 1.1))


# ---- the router ---------------------------------------------------------------------------------------------------


def test_the_router_is_best_on_chats_and_as_good_where_nothing_is_shared() -> None:
    by = {name: figures(Fleet(4), POLICIES[name], CHATS, 21) for name in ("cost", "round robin", "least requests")}
    for other in ("round robin", "least requests"):
        assert by["cost"].ttft_p99 <= by[other].ttft_p99
        assert by["cost"].ttft_p50 <= 0.9 * by[other].ttft_p50
        assert by["cost"].hits > by[other].hits + 0.1
    alone = Independent(12.0, 6.0)
    cost, least = (figures(Fleet(4), POLICIES[name], alone, 21) for name in ("cost", "least requests"))
    assert cost.ttft_p99 <= 1.1 * least.ttft_p99


def test_a_full_cache_that_forgets_does_not_mislead_the_router() -> None:
    fleet, load = Fleet(4, replace(ASCEND, blocks=1024)), Chats(0.25, 50.0, systems=32)
    cost, least = (figures(fleet, POLICIES[name], load, 21) for name in ("cost", "least requests"))
    assert cost.ttft_p99 <= least.ttft_p99
    assert cost.hits > least.hits + 0.15


# ---- the command --------------------------------------------------------------------------------------------------

SHORT = ("--parts", "usual", "--replicas", "2", "--seeds", "5", "--seconds", "1", "--processes", "1")


def test_the_same_seeds_give_the_same_figures_in_every_process() -> None:
    """Python's own hashes differ; only whether they are equal may matter."""
    told = [
        subprocess.run(
            [sys.executable, "-m", "scripts.bench.routing", *SHORT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert all(name in told[0] for name in POLICIES)


def test_times_of_the_router(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_REPEATS": 1, "_TURNS": 2, "_LIVE": 4}.items():
        monkeypatch.setattr(pick_time, name, value)
    command.main(["--parts", "pick"])
    assert "| 48000 | 64 |" in capsys.readouterr().out


def test_every_part_has_its_cases(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    short = ("--seeds", "5", "--seconds", "0.5", "--processes", "1", "--json", str(told))
    command.main(["--parts", "weights", *short])
    assert "four times the weights" in capsys.readouterr().out
    assert len(json.loads(told.read_text())) == 2 + 3


@pytest.mark.parametrize("number", range(3))
def test_unusual_cases_run(number: int) -> None:
    case = cases.unusual(3.0)[number]
    assert cases.run(case, "cost", 1).tokens_s > 0
