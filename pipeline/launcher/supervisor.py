"""Starts the stages, gives them rings, and when one dies or hangs ends the generation, starts it anew and gives all
fresh rings.

One loop, which waits for what the stages say, for their deaths (pidfds), for signals, and for the next thing that is
due. Nothing else in here waits, whatever a stage does or does not do.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack

import ipc
from pipeline.config import Configuration, ConfigurationError
from pipeline.front.http.api_keys import KeysError, load_api_keys
from pipeline.host.facts import HostError, raise_descriptor_limit
from pipeline.launcher.child import Child, Phase
from pipeline.launcher.hang_detector import Hang, HangDetector
from pipeline.launcher.listening import Listeners, address, exposed
from pipeline.launcher.readiness import Readiness
from pipeline.launcher.reload import Reload
from pipeline.launcher.restarts import Restarts
from pipeline.launcher.rings import Rings
from pipeline.launcher.signals import caught_signals
from pipeline.launcher.stage_processes import StageProcesses
from pipeline.runtime.control_channel import ChannelError, Message
from pipeline.runtime.engines import make_runner, shapes_of
from pipeline.runtime.generations import HUNG, STOPPED, Ended
from pipeline.runtime.logs import configure_logging
from pipeline.runtime.nonblocking_stderr import write_stderr
from pipeline.stats import STAGES, Counters, LauncherCounter, StageState, StatsPage

log = logging.getLogger("ringserve.launcher")

DRAIN_MARGIN_S = 3.0  # for the front to tell its clients, and to end

OPEN_TO_ALL = (
    "warning: other machines may reach this server, and no API key is needed to use it; "
    "set RINGSERVE_API_KEY or pipeline.api_keys_file, or listen on 127.0.0.1"
)
_RINGS = "the rings"  # what is blamed, and started again, when no stage is to blame


class Supervisor:
    """One server, from start to end. `reread` reads its configuration again; raises ConfigurationError, HostError.
    `readiness` is told when it is ready, and when it reloads and stops."""

    def __init__(
        self, config: Configuration, reread: Callable[[], Configuration], readiness: Readiness | None = None
    ) -> None:
        self._config, self._reread = config, reread
        self._readiness = readiness or Readiness()
        self._began = time.monotonic()
        self._status: int | None = None  # the exit status, once it is decided
        self._restarts = Restarts(config.pipeline.max_restarts)
        self._restart_at: dict[str, float] = {}
        self._complete = False  # every stage is at work in the current generation
        self._was_complete = False  # some generation was
        self._ended: list[Ended] = []  # deaths since a generation was complete
        self._useful: set[str] = set()  # stages that did something in the generation that ended last
        self._down_since = 0.0
        self._drain_until: float | None = None

    def run(self) -> int:
        """Exit status. Raises ModelError, IpcError, OSError, KeysError, PortInUseError for what can't be started."""
        self._configure_logging()
        with ExitStack() as stack:
            self._signals = stack.enter_context(caught_signals())
            for name in ipc.sweep_segments():
                report(f"removed {name}, left behind by a launcher that was killed")
            api_keys = load_api_keys(self._config)
            self._listeners = stack.enter_context(contextlib.closing(Listeners.open(self._config)))
            self._prepare(stack, api_keys)
            for name in STAGES:
                self._processes.start(name, self._config)
            while self._status is None:
                self._turn()
            return self._status

    def _prepare(self, stack: ExitStack, api_keys: tuple[str, ...]) -> None:
        """Everything that may not fit is made before anything is loaded."""
        runner = make_runner(self._config)
        shapes = shapes_of(self._config, runner)
        facts = runner.facts
        cache = f"{facts.num_blocks} KV cache blocks of {facts.block_size} tokens"
        report(f"{facts.name} on {facts.device}: {shapes.max_rows} rows, {cache}")
        self._rings = Rings(self._config, shapes)
        stack.callback(self._rings.close)
        page = StatsPage.create()
        page.unlink()
        stack.callback(page.close)
        self._page, self._counters = page, Counters(page, "launcher")
        self._hang_detector = HangDetector(page, self._config.pipeline.hang_timeout_s)
        self._processes = StageProcesses(page, shapes, self._listeners, api_keys, self._signals)
        stack.callback(self._processes.close)

    def _turn(self) -> None:
        for child, message in self._processes.wait(self._next_due() - time.monotonic()):
            if message is None:
                self._on_death(child)
            else:
                self._on_message(child, message)
        self._heed_signals()
        if self._status is None:
            self._look()
            self._start_due()
            self._hand_over()

    def _next_due(self) -> float:
        drain = [] if self._drain_until is None else [self._drain_until]
        return min([self._hang_detector.due, *self._restart_at.values(), *drain])

    # ---- what stages say ------------------------------------------------------------------------------------

    def _on_message(self, child: Child, message: Message) -> None:
        message.close()  # stages send no descriptors
        if message.event == "progress":
            child.show(**message.fields)
        elif message.event == "failed":
            child.why = message.fields["why"]
        elif message.event == "waiting":
            if child.phase in (Phase.ATTACHING, Phase.SERVING):
                self._on_departure(child)
            child.phase = Phase.WAITING
        elif message.event == "ready" and child.phase is Phase.ATTACHING:
            child.phase = Phase.SERVING
            if all(other.phase is Phase.SERVING for other in self._processes.children.values()):
                self._on_complete()

    def _on_departure(self, child: Child) -> None:
        """It left before its rings were revoked: its peer has just died, else something is wrong with them."""
        nobody_died = not any(other.dead for other in self._processes.children.values())
        self._end_generation()
        if self._drain_until is not None:
            return  # the front is done, and closes its rings
        if nobody_died and len(self._processes.children) == len(STAGES):
            self._schedule(_RINGS, f"{child.title} found its rings closed")

    def _on_complete(self) -> None:
        self._complete = True
        self._hang_detector.complete()
        self._ended.clear()
        for name in STAGES:
            self._set_state(name, StageState.OK)
        if self._was_complete:
            log.warning("serving again after %.1f s", time.monotonic() - self._down_since)
            self._readiness.status("serving again")
        else:
            self._announce()
        self._was_complete = True

    def _announce(self) -> None:
        report(f"ready after {time.monotonic() - self._began:.1f} s")
        listeners, locked = self._listeners, bool(self._processes.api_keys)
        if not locked and any(map(exposed, listeners.api)):
            report(OPEN_TO_ALL)
        for listener in listeners.metrics:
            report(f"metrics at {address(listener)}/metrics")
        for listener in listeners.api:
            report(f"listening on {address(listener)}")
        report(f"live page: {address((listeners.metrics or listeners.api)[-1])}/")
        key = " -H 'authorization: Bearer …'" if locked else ""
        base, route = address(listeners.api[-1]), self._config.serving_config.model_route
        report(
            f"try: curl {base}/models/{route}/generate -H 'content-type: application/json'{key} "
            """-d '{"inputs": "What is a ring buffer?", "parameters": {"max_new_tokens": 60}}'"""
        )
        self._readiness.ready([*map(address, listeners.api)], [*map(address, listeners.metrics)])

    # ---- hangs and deaths -----------------------------------------------------------------------------------

    def _look(self) -> None:
        if time.monotonic() < self._hang_detector.due:
            return
        for hang in self._hang_detector.check(self._processes.children.values()):
            if hang.child is not None:
                self._on_hang(hang, hang.child)
            else:
                self._end_generation()
                self._schedule(_RINGS, f"{hang.what}, for {hang.still_s:.1f} s now")

    def _on_hang(self, hang: Hang, child: Child) -> None:
        if child.ended_as is not None:
            return  # told already; it takes the kernel a moment
        stopped = ", and it is stopped (SIGSTOP)" if hang.stopped else ""
        log.error("%s hangs: %s, for %.1f s now%s", child.title, hang.what, hang.still_s, stopped)
        self._set_state(child.name, StageState.HUNG)
        self._kill(child, STOPPED if hang.stopped else HUNG)

    def _kill(self, child: Child, how: str) -> None:
        child.ended_as = how
        child.signal(signal.SIGKILL)

    def _on_death(self, child: Child) -> None:
        self._hang_detector.forget(child)
        status = child.reap()
        what = f"{child.title} {child.describe(status)}"
        if child.name == "front" and self._drain_until is not None:
            self._end_drain(what, status)
        elif not self._was_complete and status >= 0:
            report(f"{child.name} could not start: {child.why or what}")
            self._status = 1
        else:
            if child.phase in (Phase.ATTACHING, Phase.SERVING, Phase.LEAVING):
                in_hand = self._hang_detector.in_hand() if child.name == "preprocess" else ()
                self._ended.append(Ended(child.name, child.how(status), child.generation, in_hand))
            self._end_generation()
            self._page.reset(child.name)
            self._set_state(child.name, StageState.RESTARTING)
            self._schedule(child.name, what)

    def _schedule(self, name: str, what: str) -> None:
        """Start it again, if it may be."""
        delay, limit = self._restarts.on_death(name, what, useful=name in self._useful), self._restarts.limit
        self._useful.discard(name)
        if delay is None:
            history = self._restarts.report()
            log.error("%s; after %d restarts in a row the server exits. What happened:\n%s", what, limit, history)
            self._status = 1
            return
        when = f" in {delay:g} s" if delay else ""
        again = "giving out fresh ones" if name == _RINGS else "restarting it"
        self._readiness.status(f"{what}; {again}")
        log.error("%s; %s%s (%d of at most %d in a row)", what, again, when, self._restarts.in_a_row(name), limit)
        self._restart_at[name] = time.monotonic() + delay

    def _start_due(self) -> None:
        for name in [name for name, at in self._restart_at.items() if at <= time.monotonic()]:
            del self._restart_at[name]
            if name == _RINGS:
                continue  # the hand-over waited for it
            try:
                self._processes.start(name, self._config)
            except OSError as error:
                self._schedule(name, f"{name} could not be started: {error}")
            else:
                self._counters.add(LauncherCounter[f"{name.upper()}_RESTARTS"])

    # ---- rings ----------------------------------------------------------------------------------------------

    def _end_generation(self) -> None:
        """Every stage lets go of its rings, and waits for others."""
        if self._rings.current is None:
            return
        self._useful = self._hang_detector.end()
        if self._useful:
            self._useful.add(_RINGS)
        self._rings.end()
        if self._complete:
            self._down_since = time.monotonic()
        self._complete = False
        for child in self._processes.children.values():
            if child.phase in (Phase.ATTACHING, Phase.SERVING):
                child.phase = Phase.LEAVING

    def _hand_over(self) -> None:
        """Fresh rings, as soon as everybody is there and has let go of the old ones, whose memory is free then."""
        children = self._processes.children
        if self._rings.current or self._restart_at or len(children) < len(STAGES):
            return
        if any(child.phase is not Phase.WAITING for child in children.values()):
            return
        try:
            self._hang_detector.begin(self._rings.begin())
        except ipc.IpcError as error:
            self._schedule(_RINGS, str(error))
            return
        self._counters.set(LauncherCounter.GENERATION, self._rings.number)
        for child in children.values():
            child.phase = Phase.ATTACHING
            try:
                self._rings.give(child, tuple(self._ended))
            except ChannelError as error:
                log.error("%s does not listen: %s", child.title, error)  # noqa: TRY400 - no trace is wanted
                self._kill(child, HUNG)

    # ---- signals --------------------------------------------------------------------------------------------

    def _heed_signals(self) -> None:
        signals = self._signals
        if signals.reload:
            signals.reload = False
            self._readiness.reloading()
            self._reload()
            self._readiness.reloaded()
        if self._status is not None or not signals.ends:
            return
        if not self._was_complete:
            report("interrupted while starting")
            self._status = 0
        elif self._drain_until is None and signals.ends == 1:
            self._begin_drain()
        elif signals.ends > 1 or time.monotonic() > (self._drain_until or 0):
            self._status = 0

    def _begin_drain(self) -> None:
        """The front refuses what is new, and ends when the requests that it has let in are done."""
        limit = self._config.pipeline.drain_timeout_s
        self._readiness.stopping()
        log.warning("draining: requests under way have %g s; a second signal stops at once", limit)
        self._drain_until = time.monotonic() + limit + DRAIN_MARGIN_S
        try:
            self._processes.children["front"].send("drain")
        except (ChannelError, KeyError):
            log.warning("the front is being restarted: no request is left to be finished")
            self._status = 0

    def _end_drain(self, what: str, status: int) -> None:
        if status:
            log.error("%s while it drained", what)
        self._listeners.close()  # whoever connects now is to see that nobody is there
        self._status = 1 if status else 0

    def _reload(self) -> None:
        try:
            reload = Reload.of(self._config, self._reread())
            api_keys = load_api_keys(reload.config)
            raise_descriptor_limit(reload.config)
        except (ConfigurationError, KeysError, HostError) as error:
            log.error("the configuration was not reloaded, nothing has changed:\n%s", error)  # noqa: TRY400
            return
        self._config, self._processes.api_keys = reload.config, api_keys
        self._configure_logging()
        self._restarts.limit = reload.config.pipeline.max_restarts
        self._hang_detector.timeout_s = reload.config.pipeline.hang_timeout_s
        for child in self._processes.children.values():
            with contextlib.suppress(ChannelError):  # it is about to be noticed
                child.send("reload", values=reload.live, api_keys=api_keys if child.name == "front" else ())
        log.warning("%s", reload.describe())

    # ---- what others see ------------------------------------------------------------------------------------

    def _configure_logging(self) -> None:
        settings = self._config.pipeline.log
        configure_logging("launcher", level=settings.level, form=settings.format)

    def _set_state(self, name: str, state: StageState) -> None:
        self._counters.set(LauncherCounter[f"{name.upper()}_STATE"], state)


def report(text: str) -> None:
    """A line on standard error for the user who started the server; dropped if it is not read."""
    write_stderr(f"ringserve: {text}\n")
