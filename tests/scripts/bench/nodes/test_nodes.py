"""Nodes and routers in simulated time: nothing is lost or comes twice, and the same seeds give the same figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.emulated import CostModel
from scripts.bench.nodes import __main__ as command
from scripts.bench.nodes import cases, measure
from scripts.bench.nodes.costs import FREE, MEASURED, RouterCosts
from scripts.bench.nodes.fleet import Division, Fleet, Loss, Simulation
from scripts.bench.nodes.seen import Gaps
from scripts.bench.routing.policies import POLICIES
from scripts.bench.routing.replica import Device
from scripts.bench.routing.requests import Asked, Chats, Independent, Load
from scripts.bench.routing.simulation import Fleet as Replicas
from scripts.bench.routing.simulation import figures

CHATS = Chats(0.5, 6.0, spelled=False)
SIMPLE = Device(CostModel(fixed_ms=10.0, per_token_ms=1.0), rows=2, token_budget=64, blocks=64)
LOSSES = (Loss(1, 2.0), Loss(2, 3.0, crashed=True), Loss(0, 5.0, crashed=True, back=6.0), Loss(3, 70.0, back=5.0))


def asked(number: int, at: float, prompt: int, output: int) -> Asked:
    return Asked(number, at, number, np.arange(prompt, dtype=np.int32), np.zeros(output, np.int32), "")


def fixed(*requests: Asked) -> Load:
    def load(nodes: int, seed: int) -> Iterator[Asked]:
        yield from requests

    return load


def ran(fleet: Fleet, load: Load) -> Simulation:
    simulation = Simulation(fleet, 1)
    simulation.run(load, 1)
    return simulation


def whole(simulation: Simulation) -> dict[int, int]:
    """Tokens by request, each of which has come exactly once; of no request is anything left."""
    done = simulation.seen.done
    assert len({one.number for one in done}) == len(done)
    assert all(one.made == len(one.output) and one.arrival < one.first <= one.end for one in done)
    assert simulation.seen.tokens == sum(one.made for one in done)
    assert not simulation._asked
    assert not any(front._streams or front._live for front in simulation._fronts)
    assert not any(front.lanes._router._sent for front in simulation._fronts)
    return {one.number: one.made for one in done}


@pytest.mark.parametrize("load", [CHATS, Independent(5.0, 2.0, spelled=False)], ids=["chats", "prompts"])
@pytest.mark.parametrize("division", [Division.AT_RANDOM, Division.BY_KEY])
def test_no_token_is_lost_and_none_comes_twice_whatever_is_lost(load: Load, division: Division) -> None:
    undisturbed = ran(Fleet(5), load)
    hit = ran(Fleet(5, 3, division, MEASURED, losses=LOSSES), load)
    assert whole(undisturbed) == whole(hit)
    assert undisturbed.seen.moved == undisturbed.seen.again == len(undisturbed.seen.waits) == 0
    assert hit.seen.moved > 0 < hit.seen.again
    assert 0 < len(hit.seen.waits) <= hit.seen.moved


def test_a_router_without_costs_is_the_one_of_the_simulated_replicas() -> None:
    """Both have the server's router and scheduler, each its own way to them."""
    load = replace(CHATS, spelled=True)
    found = Simulation(Fleet(4), 3).run(load, 3)
    other = figures(Replicas(4), POLICIES["cost"], load, 3)
    assert found.ttft_p50 == pytest.approx(other.ttft_p50, rel=0.03)
    assert found.tokens_s == pytest.approx(other.tokens_s, rel=0.03)


def test_a_routers_cpu_delays_what_it_does() -> None:
    costs = RouterCosts(request=1e3, lane=500.0, frame=2e3, token=3e3)  # µs
    one, two = (ran(Fleet(2, costs=taken, device=SIMPLE), fixed(asked(0, 5.0, 20, 3))) for taken in (FREE, costs))
    assert one.seen.first == [10 + 20]
    assert two.seen.first == [2 + 10 + 20 + 5]
    assert two._fronts[0].busy_ms == 2 + 3 * 5


def test_a_router_that_is_too_slow_falls_behind() -> None:
    slow = RouterCosts(token=2e3)
    simulation = ran(Fleet(2, costs=slow, device=SIMPLE), fixed(*(asked(n, 0.0, 2, 200) for n in range(4))))
    assert max(one.end for one in simulation.seen.done) >= 4 * 200 * 2


def test_the_wait_of_a_stream_whose_machine_is_gone() -> None:
    """Three heartbeats and a half, then the other node computes the prompt again, then what followed it."""
    fleet = Fleet(2, device=SIMPLE, losses=(Loss(0, 0.105),))
    simulation = ran(fleet, fixed(asked(0, 0.0, 20, 30)))
    (wait,) = simulation.seen.waits
    assert simulation.seen.again == 20 + 7  # tokens at 30, 41, …, 96 ms
    assert wait == 105 + 3500 - 96 + (10 + 20) + (10 + 7)


def test_a_suspect_waits_for_its_node_or_goes_on_alone_elsewhere() -> None:

    def hit(back: float) -> Simulation:
        requests = fixed(asked(0, 0.0, 20, 60), asked(1, 1.0, 20, 400))
        return ran(Fleet(2, device=SIMPLE, losses=(Loss(0, 0.105, crashed=True, back=back),)), requests)

    soon, never = hit(5.0), hit(90.0)
    assert whole(soon) == whole(never)
    assert 4900 < soon.seen.waits[0] < 5200
    assert 30_000 < never.seen.waits[0] < 30_300


def test_requests_of_a_conversation_come_to_one_router() -> None:
    simulation = Simulation(Fleet(3, 4), 1)
    seen: dict[int, set[int]] = {}
    arrive = simulation._arrive

    def note(one: Asked) -> None:
        arrive(one)
        seen.setdefault(one.session, set()).add(simulation._front[one.number])

    simulation._arrive = note  # type: ignore[method-assign]
    simulation.run(CHATS, 1)
    assert all(len(routers) == 1 for routers in seen.values())
    assert set.union(*seen.values()) == {0, 1, 2, 3}


def test_cells_share_nothing() -> None:
    simulation = ran(Fleet(6, 3, Division.CELLS, losses=(Loss(4, 2.0),)), CHATS)
    whole(simulation)
    assert [list(front.nodes) for front in simulation._fronts] == [[0, 3], [1, 4], [2, 5]]
    assert all(len(front.lanes) == 2 for front in simulation._fronts)
    assert simulation.seen.moved > 0


def test_routers_that_see_only_their_own_requests_find_less() -> None:
    fleet, load = Fleet(8), Chats(0.5, 12.0, spelled=False)
    one = Simulation(fleet, 1).run(load, 1)
    any_router = Simulation(replace(fleet, routers=8, division=Division.AT_RANDOM), 1).run(load, 1)
    assert any_router.hits < one.hits


def test_percentiles_of_gaps() -> None:
    gaps = Gaps()
    assert np.isnan(gaps.percentile(50))
    for ms in range(1, 1001):
        gaps.add(float(ms))
    assert gaps.count == 1000
    assert [gaps.percentile(part) for part in (50, 99, 99.9)] == pytest.approx([500, 990, 999], rel=0.006)


# ---- costs --------------------------------------------------------------------------------------------------------


def test_costs_are_solved_from_the_loads() -> None:
    costs = RouterCosts(500.0, 0.1, 70.0, 15.0)
    taken = [
        times * (streams * costs.request + tokens * costs.frame + streams * tokens * costs.token)
        for streams, tokens, times in measure.LOADS
    ]
    found = measure.fitted(taken, 30.0, 0.1)
    assert (found.request, found.lane, found.frame, found.token) == pytest.approx((530, 0.1, 70, 15))


def test_a_decision_can_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_TURNS": 2, "_REPEATS": 1, "_LIVE": 4}.items():
        monkeypatch.setattr(measure, name, value)
    assert 0 < measure.decision_us(3) < 1e6


# ---- the command --------------------------------------------------------------------------------------------------

SHORT = ("--nodes", "2,3", "--routers", "1,2", "--few", "3", "--losses", "2")


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "ONE_ROUTER", {cases.CHATS: (2,), cases.PROMPTS: (3,)})
    monkeypatch.setattr(cases, "LOADS", {cases.CHATS: (0.5, 3.0, 0.5), cases.PROMPTS: (4.0, 1.5, 0.5)})


def test_every_part_is_reported_and_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch)
    told, drawn = tmp_path / "told.json", tmp_path / "drawn.png"
    has_plots = __import__("importlib.util").util.find_spec("matplotlib") is not None
    plot = ("--plot", str(drawn)) if has_plots else ()
    assert command.main([*SHORT, "--json", str(told), *plot]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{part}\n" in out for part in command.PARTS)
    assert "machines are gone" in out
    assert len(json.loads(told.read_text())["runs"]) == 2 * 2 + 2 + 4 + 4
    assert drawn.exists() == has_plots


def test_where_a_routers_cpu_is_full_is_between_two_runs() -> None:
    few = Simulation(Fleet(2), 1).run(fixed(asked(0, 0.0, 20, 3)), 1)
    runs = [
        (
            cases.made("router", cases.CHATS, Fleet(nodes)),
            replace(few, busy=busy, requests_s=10.0 * nodes, tokens_s=1e3 * nodes),
        )
        for nodes, busy in ((16, 0.4), (32, 0.8), (64, 1.6))
    ]
    assert "before 40 nodes, with 400 requests and 40,000 tokens a second" in command.full(runs, cases.CHATS)
    assert command.full(runs, cases.PROMPTS) == command.full(runs[:2], cases.CHATS) == ""


def test_the_same_seed_gives_the_same_figures_in_every_process() -> None:
    """Python's own hashes differ; only whether they are equal may matter."""
    program = (
        "from scripts.bench.nodes.fleet import *; from scripts.bench.routing.requests import Chats;"
        "print(Simulation(Fleet(3, 2, losses=(Loss(0, 1.0, True),)), 5).run(Chats(0.5, 3.0, spelled=False), 5))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(command.__file__).parents[3])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert "hits" in told[0]
