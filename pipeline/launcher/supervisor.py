"""Starts the stages, gives them rings, and when one dies ends the generation, starts it anew and gives fresh rings.

One loop, which waits for what the stages say, for their deaths (pidfds), for signals, and for the next thing that is
due; nothing else in here waits, whatever a stage does or does not do.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import time
from contextlib import ExitStack

import ipc
from pipeline.config import Configuration
from pipeline.control import ChannelError, Message
from pipeline.generations import HUNG, Ended, Generation
from pipeline.launcher.child import Child, Phase
from pipeline.launcher.crew import Crew
from pipeline.launcher.listeners import listen, urls
from pipeline.launcher.restarts import Restarts
from pipeline.launcher.signals import caught_signals
from pipeline.logs import configure_logging
from pipeline.runners import make_runner, shapes_of
from pipeline.stage import NAMES
from pipeline.stats import Counters, LauncherCounter, StageState, StatsPage
from pipeline.wiring import Wiring

log = logging.getLogger("ringserve.launcher")

_FAR_S = 3600.0


class Supervisor:
    """One server, from start to end."""

    def __init__(self, config: Configuration) -> None:
        self.config = config
        self._began = time.monotonic()
        self._status: int | None = None  # the exit status, once it is decided
        self._restarts = Restarts(config.pipeline.max_restarts)
        self._restart_at: dict[str, float] = {}
        self._wiring: Wiring | None = None  # of the current generation
        self._next_wiring: Wiring | None = None
        self._number = 0  # of the current or last generation
        self._complete = False  # every stage is at work in it
        self._was_ready = False  # some generation was complete
        self._ended: list[Ended] = []
        self._down_since = 0.0
        self._drain_until: float | None = None

    def run(self) -> int:
        """Exit status. Raises ModelError, IpcError, OSError and PortInUseError for what can't be started."""
        log_config = self.config.pipeline.log
        configure_logging("launcher", level=log_config.level, form=log_config.format)
        with ExitStack() as stack:
            self._signals = stack.enter_context(caught_signals())
            for name in ipc.sweep_segments():
                say(f"removed {name}, left behind by a launcher that was killed")
            self._sockets = [stack.enter_context(listener) for listener in listen(self.config)]
            self._prepare(stack)
            for name in NAMES:
                self._crew.start(name, self.config)
            while self._status is None:
                self._turn()
            return self._status

    def _prepare(self, stack: ExitStack) -> None:
        """Everything that may not fit is made before anything is loaded."""
        runner = make_runner(self.config)
        self._shapes = shapes_of(self.config, runner)
        facts = runner.facts
        cache = f"{facts.num_blocks} KV blocks of {facts.block_size} tokens"
        say(f"{facts.name} on {facts.device}: {self._shapes.max_rows} rows, {cache}")
        stack.callback(self._drop_rings)
        self._next_wiring = self._make_rings()
        self._page = StatsPage.create()
        self._page.unlink()
        stack.callback(self._page.close)
        self._counters = Counters(self._page, "launcher")
        self._crew = Crew(self._page, self._shapes, self._sockets, self._signals)
        stack.callback(self._crew.close)

    def _turn(self) -> None:
        for child, message in self._crew.wait(self._next_due() - time.monotonic()):
            if message is None:
                self._on_death(child)
            else:
                self._on_message(child, message)
        self._heed_signals()
        self._start_due()
        self._hand_over()

    def _next_due(self) -> float:
        times = [*self._restart_at.values(), time.monotonic() + _FAR_S]
        if self._drain_until is not None:
            times.append(self._drain_until)
        return min(times)

    # ---- what stages say ------------------------------------------------------------------------------------

    def _on_message(self, child: Child, message: Message) -> None:
        message.close()  # stages send no descriptors
        if message.event == "progress":
            child.show(**message.fields)
        elif message.event == "failed":
            child.why = message.fields["why"]
        elif message.event == "waiting":
            self._on_waiting(child)
        elif message.event == "ready" and child.phase is Phase.ATTACHING:
            child.phase = Phase.SERVING
            if all(other.phase is Phase.SERVING for other in self._crew.children.values()):
                self._on_complete()
        elif message.event == "drained":
            self._status = 0

    def _on_waiting(self, child: Child) -> None:
        if child.phase in (Phase.ATTACHING, Phase.SERVING):  # before its rings were revoked: its peer has just died
            self._end_generation()
        child.phase = Phase.WAITING

    def _on_complete(self) -> None:
        self._complete = True
        self._ended.clear()
        for name in NAMES:
            self._set_state(name, StageState.OK)
        if self._was_ready:
            log.warning("serving again after %.1f s", time.monotonic() - self._down_since)
        else:
            self._announce()
        self._was_ready = True

    def _announce(self) -> None:
        say(f"ready after {time.monotonic() - self._began:.1f} s")
        base, *others = urls(self._sockets)
        for url in (base, *others):
            say(f"listening on {url}")
        say(
            f"try: curl {base}/models/{self.config.serving_config.model_route}/generate "
            "-H 'content-type: application/json' "
            """-d '{"inputs": "What is a ring buffer?", "parameters": {"max_new_tokens": 60}}'"""
        )

    # ---- deaths ---------------------------------------------------------------------------------------------

    def _on_death(self, child: Child) -> None:
        status, title = child.reap(), child.title
        what, how = child.describe(status), child.how(status)
        if not self._was_ready and status >= 0:
            say(f"{child.name} could not start: {child.why or what}")
            self._status = 1
            return
        useful = self._complete
        if child.phase in (Phase.ATTACHING, Phase.SERVING, Phase.LEAVING):
            self._ended.append(Ended(child.name, how, child.generation))
        self._end_generation()
        self._page.reset(child.name)
        self._set_state(child.name, StageState.RESTARTING)
        self._schedule(child.name, f"{title} {what}", useful=useful)

    def _schedule(self, name: str, what: str, *, useful: bool) -> None:
        delay = self._restarts.on_death(name, what, useful=useful)
        limit = self._restarts.limit
        if delay is None:
            report = self._restarts.report()
            log.error("%s; giving up after %d restarts in a row. What happened:\n%s", what, limit, report)
            self._status = 1
            return
        when = f" in {delay:g} s" if delay else ""
        log.error("%s; restarting it%s (%d of at most %d in a row)", what, when, self._restarts.in_a_row(name), limit)
        self._restart_at[name] = time.monotonic() + delay

    def _start_due(self) -> None:
        for name in [name for name, at in self._restart_at.items() if at <= time.monotonic()]:
            del self._restart_at[name]
            try:
                self._crew.start(name, self.config)
            except OSError as error:
                self._schedule(name, f"{name} could not be started: {error}", useful=False)
            else:
                self._counters.add(LauncherCounter[f"{name.upper()}_RESTARTS"])

    def _end_generation(self) -> None:
        """Revoke the rings: every stage lets go of them, and waits for others."""
        if self._wiring is None:
            return
        self._wiring.revoke()
        self._wiring.close()
        self._wiring = None
        if self._complete:
            self._down_since = time.monotonic()
        self._complete = False
        for child in self._crew.children.values():
            if child.phase in (Phase.ATTACHING, Phase.SERVING):
                child.phase = Phase.LEAVING

    # ---- rings ----------------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """Fresh rings for everybody, as soon as everybody has let go of the old ones."""
        children = self._crew.children
        if self._wiring or len(children) < len(NAMES) or self._status is not None:
            return
        if any(child.phase is not Phase.WAITING for child in children.values()):
            return
        self._wiring, self._next_wiring = self._next_wiring or self._make_rings(), None
        self._number += 1
        self._counters.set(LauncherCounter.GENERATION, self._number)
        for child in children.values():
            self._give(child, self._wiring)

    def _give(self, child: Child, wiring: Wiring) -> None:
        generation = Generation(self._number, wiring.handles(child.name), tuple(self._ended))
        fields, fds = generation.to_message()
        try:
            child.send("generation", fds, **fields)
        except ChannelError:
            child.ended_as = HUNG
            child.signal(signal.SIGKILL)
        child.phase, child.generation = Phase.ATTACHING, self._number

    def _make_rings(self) -> Wiring:
        wiring = Wiring.create(self.config, self._shapes)
        wiring.unlink()
        return wiring

    def _drop_rings(self) -> None:
        for wiring in (self._wiring, self._next_wiring):
            if wiring is not None:
                wiring.close()

    # ---- signals --------------------------------------------------------------------------------------------

    def _heed_signals(self) -> None:
        if self._status is not None or not self._signals.ends:
            return
        if not self._was_ready:
            say("interrupted while starting")
            self._status = 0
        elif self._signals.ends > 1 or (self._drain_until is not None and time.monotonic() > self._drain_until):
            self._status = 0
        elif self._drain_until is None:
            self._drain()

    def _drain(self) -> None:
        limit = self.config.pipeline.drain_timeout_s
        log.warning("draining: requests under way have %g s; a second signal stops at once", limit)
        self._drain_until = time.monotonic() + limit + 1
        with contextlib.suppress(ChannelError, KeyError):
            self._crew.children["front"].send("drain")

    # ---- what others see ------------------------------------------------------------------------------------

    def _set_state(self, name: str, state: StageState) -> None:
        self._counters.set(LauncherCounter[f"{name.upper()}_STATE"], state)


def say(text: str) -> None:
    """A line for whoever started it."""
    with contextlib.suppress(OSError):  # nobody may be there to read it
        print(f"ringserve: {text}", file=sys.stderr, flush=True)
