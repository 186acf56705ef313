"""The router that a configuration asks for: the one by cost, or one that it can be compared with."""

from __future__ import annotations

import asyncio
import itertools
import secrets

from pipeline.front.delivery.routing.router import Choice, Float64, Prompt, Router, Weights
from pipeline.front.delivery.routing.step_cost import StepCost
from pipeline.front.settings import FrontSettings
from pipeline.stats import StatsReader

_WEIGH_S = 5.0


class LeastRequests(Router):
    """The replica with the fewest requests."""

    def _choose(self, barred: Float64, prompt: Prompt) -> Choice | None:
        best = self._first_of_least(self._loads.requests + self._loads.others + barred)
        return None if best is None else Choice(best, prompt=prompt)


class RoundRobin(Router):
    """One after the other."""

    def _choose(self, barred: Float64, prompt: Prompt) -> Choice | None:
        best = self._first_of_least(barred)
        return None if best is None else Choice(best, prompt=prompt)


_ROUTERS: dict[str, type[Router]] = {"cost": Router, "least_requests": LeastRequests, "round_robin": RoundRobin}


async def keep_weighing(router: Router, stats: StatsReader, settings: FrontSettings) -> None:
    """Until cancelled: what the router weighs with follows from the steps of the replicas, which are alike; one of
    them is looked at each time."""
    for replica in itertools.cycle(range(settings.replicas)):
        await asyncio.sleep(_WEIGH_S)
        if (cost := StepCost.measured(stats.steps(replica=replica))) is not None:
            router.weights = cost.weights(settings.max_rows, settings.token_budget)


def make_router(settings: FrontSettings) -> Router:
    """One before nodes, where others may be as well, begins anywhere."""
    weights, cached = Weights(rows=settings.max_rows), settings.cached_tokens
    first = secrets.randbelow(settings.replicas) if settings.is_router else 0
    return _ROUTERS[settings.routing](settings.replicas, weights, cached_tokens=cached, first=first)
