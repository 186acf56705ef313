"""Starts the stages, gives them rings, and when one dies or hangs ends the generations that it had a part in, starts
it anew and hands out fresh rings.

One loop, which waits for what the stages say, for their deaths (pidfds), for signals, and for the next thing that is
due. Nothing else in here waits, whatever a stage does or does not do.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import MappingProxyType

import ipc
from pipeline.config import Configuration, ConfigurationError, with_values
from pipeline.host.cpu_placement import fit_as
from pipeline.host.facts import HostError, raise_descriptor_limit
from pipeline.launcher.announce import announce, report
from pipeline.launcher.api_keys import KeysError, load_api_keys
from pipeline.launcher.child import REPLACED, WITH_OTHERS, Child, in_plain_words
from pipeline.launcher.exporter import ExporterProcess
from pipeline.launcher.hang_detector import Hang, HangDetector
from pipeline.launcher.listening import Listeners, address, host_and_port
from pipeline.launcher.readiness import Readiness
from pipeline.launcher.reload import Reload
from pipeline.launcher.replica import Replica
from pipeline.launcher.restarts import LONGEST_DELAY_S, Restarts
from pipeline.launcher.rings import Rings
from pipeline.launcher.signals import caught_signals
from pipeline.launcher.stage_processes import StageProcesses, stage_command
from pipeline.launcher.weights import Changes
from pipeline.runtime.control_channel import ChannelError, Message
from pipeline.runtime.engines import facts_of, shapes_with
from pipeline.runtime.generations import HUNG, STOPPED
from pipeline.runtime.logs import configure_logging
from pipeline.runtime.vocabulary import VocabularyFile
from pipeline.stats import StageState, StatsPage, StatsReader, Supervision
from pipeline.wire.api_key import ApiKey
from pipeline.wire.step import Shapes
from pipeline.wire.topology import StageSpec, Topology

log = logging.getLogger("ringserve.launcher")

DRAIN_MARGIN_S = 3.0  # for the front to tell its clients, and to end


class Supervisor:
    """One server, from start to end. `reread` reads its configuration again; raises ConfigurationError, HostError.
    `readiness` is told when it is ready, and when it reloads and stops. `topology`: what runs, if not what the
    configuration says; `command` starts a stage; `fitted` is the configuration as it is for each replica's part of
    the host, if they differ; `fingerprints` are those of adapters, by name; `vocabulary` is what fronts are given;
    `weights` is the id of those that the configuration names."""

    def __init__(
        self,
        config: Configuration,
        reread: Callable[[], Configuration],
        readiness: Readiness | None = None,
        topology: Topology | None = None,
        command: Callable[[StageSpec], Sequence[str]] = stage_command,
        fitted: Sequence[Configuration] = (),
        fingerprints: Mapping[str, bytes] = MappingProxyType({}),
        vocabulary: VocabularyFile | None = None,
        weights: str = "",
    ) -> None:
        self._config, self._reread = config, reread
        self._topology, self._command = topology or Topology.of(config), command
        self._fitted, self._fingerprints, self._vocabulary = fitted, fingerprints, vocabulary
        self._weights = weights
        self._readiness = readiness or Readiness()
        self._began = time.monotonic()
        self._status: int | None = None  # the exit status, once it is decided
        self._restarts = Restarts(config.pipeline.max_restarts)
        self._restart_at: dict[str, float] = {}  # units, and rings of replicas
        self._was_complete = False  # every replica has served
        self._nodes: tuple[str, ...] | None = None  # a router's, if they are others than in the configuration
        self._linked_usefully: set[str] = set()  # a router's front that has reached a node
        self._drain_until: float | None = None
        self._drained_with = 0  # the exit status after a drain

    def run(self) -> int:
        """Exit status. For what can't be started it raises ModelError, IpcError, OSError, KeysError, HostError,
        PortInUseError."""
        self._configure_logging()
        with ExitStack() as stack:
            self._signals = stack.enter_context(caught_signals())
            for name in ipc.sweep_segments():
                report(f"removed {name}, left behind by a launcher that was killed")
            api_keys = load_api_keys(self._config)
            self._listeners = stack.enter_context(contextlib.closing(Listeners.open(self._config)))
            self._prepare(stack, api_keys)
            for stage in self._topology.stages:
                self._start(stage)
            while self._status is None:
                self._turn()
            return self._status

    def _prepare(self, stack: ExitStack, api_keys: tuple[ApiKey, ...]) -> None:
        """Everything that may not fit is made before anything is loaded."""
        facts = facts_of(self._config)
        shapes = shapes_with(self._config, facts)
        cache = f"{facts.num_blocks} KV cache blocks of {facts.block_size} tokens"
        beside = f", {facts.adapters} adapters" if facts.adapters else ""
        there = f"{facts.name} on {facts.device}: {shapes.max_rows} rows, {cache}{beside}"
        report(there if self._topology.replicas else facts.name)
        page = StatsPage.create(self._topology)
        page.unlink()
        stack.callback(page.close)
        self._page, self._supervision = page, Supervision(page)
        self._hang_detector = HangDetector(page, self._config.pipeline.hang_timeout_s)
        self._exporter = ExporterProcess(self._config, page) if self._config.pipeline.otlp_endpoint else None
        if self._exporter is not None:
            stack.callback(self._exporter.close)
        rings = [self._make_rings(stack, number, shapes) for number in range(self._topology.replicas)]
        self._processes = StageProcesses(
            page,
            shapes,
            facts,
            self._listeners,
            api_keys,
            self._signals,
            self._command,
            self._fingerprints,
            self._vocabulary,
            {} if self._exporter is None else self._exporter.rings,
        )
        stack.callback(self._processes.close)
        common = self._processes.children, self._hang_detector, self._supervision
        self._replicas = [Replica(self._topology, number, each, *common) for number, each in enumerate(rings)]
        self._changes = Changes(
            self._weights,
            self._topology,
            self._replicas,
            self._processes.children,
            self._supervision,
            lambda unit: self._restart_at.update({unit: time.monotonic()}),
        )
        stack.callback(self._changes.close)
        for number, each in enumerate(rings):
            each.on_end = partial(self._processes.meetings.end_generation, number)

    def _start(self, stage: StageSpec) -> None:
        """Raises OSError."""
        config = fit_as(self._config, self._fitted[stage.replica or 0]) if self._fitted else self._config
        if self._nodes is not None:
            config = with_values(config, {"pipeline.nodes": self._nodes})
        self._processes.start(stage, self._changes.of(config, stage))

    def _make_rings(self, stack: ExitStack, replica: int, shapes: Shapes) -> Rings:
        rings = Rings(self._topology, replica, self._config, shapes)
        stack.callback(rings.close)
        return rings

    def _turn(self) -> None:
        for child, message in self._processes.wait(self._next_due() - time.monotonic()):
            if message is None:
                self._on_death(child)
            else:
                self._on_message(child, message)
        self._heed_signals()
        if self._exporter is not None:
            self._exporter.look()
        if self._status is None:
            self._look()
            if self._drain_until is None:
                self._changes.look()
            self._start_due()
            self._tell_fronts()
            self._hand_over()

    def _next_due(self) -> float:
        drain = [] if self._drain_until is None else [self._drain_until]
        restarts = [at for name, at in self._restart_at.items() if not self._is_ending(name)]
        exporter = [] if self._exporter is None else [self._exporter.due]
        return min([self._hang_detector.due, self._changes.due, *restarts, *drain, *exporter])

    def _is_ending(self, unit: str) -> bool:
        """Some of its processes are still about to die with another one."""
        children = self._processes.children
        stages = (children.get(stage.key) for stage in self._topology.unit(unit))
        return any(child.ended_as in (WITH_OTHERS, REPLACED) for child in stages if child)

    def _replicas_of(self, child: Child) -> list[Replica]:
        return [self._replicas[number] for number in child.attachments]

    # ---- what stages say ------------------------------------------------------------------------------------

    def _on_message(self, child: Child, message: Message) -> None:
        message.close()  # stages send no descriptors
        if message.event == "progress":
            child.show(**message.fields)
        elif message.event == "failed":
            child.why = message.fields["why"]
        elif message.event == "nodes":
            self._nodes = tuple(message.fields["nodes"])
        elif message.event == "linked":
            self._on_linked(child, message.fields["lanes"])
        elif message.event == "weights":
            self._changes.begin(self._config, child, message.fields, self._why_no_weights())
        elif message.event == "answered":
            self._changes.on_answered(message.fields)
        elif message.event in ("waiting", "ready"):
            replica = self._replicas[message.fields["replica"]]
            if message.event == "waiting":
                if child.loading and child.spec.is_front:
                    self._changes.tell(child)
                if replica.on_waiting(child, message.fields["aboard"]):
                    self._on_departure(child, replica)
            elif replica.on_ready(child):
                self._on_complete(replica)

    def _why_no_weights(self) -> str:
        """None can be loaded now; empty if they can."""
        if self._drain_until is not None:
            return "the server is shutting down"
        return "" if self._was_complete and self._replicas else "no model is loaded here yet"

    def _on_linked(self, child: Child, lanes: int) -> None:
        """A router is ready with the first replica of a node; later ones come and go."""
        child.linked = True
        self._supervision.set_state(child.name, StageState.OK)
        if not lanes:
            return
        if self._was_complete and child.spec.unit not in self._linked_usefully:
            log.warning("%s: serving again", child.title)
            self._readiness.status("serving again")
        self._linked_usefully.add(child.spec.unit)
        if not self._was_complete:
            self._was_complete = True
            self._announce()

    def _on_departure(self, child: Child, replica: Replica) -> None:
        """It left before its rings were revoked: its peer has just died, else something is wrong with them."""
        nobody_died = not any(other.dead for other in replica.members)
        replica.end_generation()
        if self._drain_until is not None:
            return  # a front is done, and closes its rings
        if nobody_died and replica.all_there:
            self._schedule(replica.rings_title, f"{child.title} found its rings closed")

    def _on_complete(self, replica: Replica) -> None:
        if replica.down_since:
            log.warning("%sserving again after %.1f s", replica.title, time.monotonic() - replica.down_since)
            self._readiness.status(f"{replica.title}serving again")
            gc.collect()  # what had to do with the processes that died
        self._changes.on_complete(replica)
        if not self._was_complete and all(each.was_complete for each in self._replicas):
            self._was_complete = True
            self._announce()

    def _announce(self) -> None:
        listeners, took_s = self._listeners, time.monotonic() - self._began
        announce(self._config, listeners, locked=bool(self._processes.api_keys), took_s=took_s)
        compiled, buckets = StatsReader(self._page).compiled()
        if compiled < buckets:
            report(f"compiled {compiled} of {buckets} buckets; the others follow while it serves")
        urls = [*map(address, listeners.api)], [*map(address, listeners.metrics)]
        self._readiness.ready(*urls, [*map(host_and_port, listeners.links)])

    # ---- hangs and deaths -----------------------------------------------------------------------------------

    def _look(self) -> None:
        if time.monotonic() < self._hang_detector.due:
            return
        hangs = self._hang_detector.check(self._processes.children.values())
        for hang in sorted(hangs, key=self._may_be_to_blame, reverse=True):
            if hang.child is not None:
                self._on_hang(hang, hang.child)
            else:
                replica = self._replicas[hang.replica]
                replica.end_generation()
                self._schedule(replica.rings_title, f"{replica.title}{hang.what}, for {hang.still_s:.1f} s now")

    def _may_be_to_blame(self, hang: Hang) -> tuple[bool, bool]:
        """Ranks hang together: the cause is the one that is stopped, or that the others wait for."""
        return hang.stopped, hang.child is not None and self._processes.meetings.is_waited_for(hang.child.spec)

    def _on_hang(self, hang: Hang, child: Child) -> None:
        if child.ended_as is not None or self._is_being_replaced(child):
            return  # told already; it takes the kernel a moment
        stopped = ", and it is stopped (SIGSTOP)" if hang.stopped else ""
        log.error("%s hangs: %s, for %.1f s now%s", child.title, hang.what, hang.still_s, stopped)
        self._supervision.set_state(child.name, StageState.HUNG)
        self._kill(child, STOPPED if hang.stopped else HUNG)
        self._end_others(child)

    def _is_being_replaced(self, child: Child) -> bool:
        """Another rank of its unit is about to die, and it with that one: it may well wait in vain until then."""
        stages = (self._processes.children.get(stage.key) for stage in self._topology.unit(child.spec.unit))
        return any(other.ended_as == REPLACED for other in stages if other)

    def _kill(self, child: Child, how: str) -> None:
        child.ended_as = how
        child.signal(signal.SIGKILL)

    def _on_death(self, child: Child) -> None:
        self._hang_detector.forget(child)
        status = child.reap()
        what = f"{child.title} {child.describe(status)}"
        if child.spec.is_front and self._drain_until is not None:
            self._on_drained(what, status)
        elif child.ended_as == WITH_OTHERS:
            self._page.reset(child.name)  # its unit is being started anew already
        elif not self._was_complete and status >= 0:
            report(f"{child.name} could not start: {in_plain_words(child.why) or what}")
            self._status = 1
        else:
            for replica in self._replicas_of(child):
                replica.on_death(child, child.how(status))
            self._page.reset(child.name)
            self._end_others(child)
            if self._changes.on_death(child, what):
                return
            for stage in self._topology.unit(child.spec.unit):
                self._supervision.set_state(stage.key, StageState.RESTARTING)
            self._schedule(child.spec.unit, what)

    def _end_others(self, child: Child) -> None:
        """The rest of its unit, which can't go on without it. What somebody waits for of one that is killed already
        is to happen all the same."""
        for stage in self._topology.unit(child.spec.unit):
            other = self._processes.children.get(stage.key)
            if other is not None and other is not child and other.ended_as is None:
                self._kill(other, WITH_OTHERS)

    def _schedule(self, name: str, what: str) -> None:
        """Start it again, if it may be: a unit, or a replica with other rings."""
        useful = name in self._linked_usefully or any(name in replica.useful for replica in self._replicas)
        self._linked_usefully.discard(name)
        delay, limit = self._restarts.on_death(name, what, useful=useful), self._restarts.limit
        if delay is None and any(replica.complete and not replica.needs(name) for replica in self._replicas):
            delay = LONGEST_DELAY_S  # the server goes on without it
        for replica in self._replicas:
            replica.useful.discard(name)
        if delay is None:
            history = self._restarts.report()
            log.error("%s; after %d restarts in a row the server exits. What happened:\n%s", what, limit, history)
            if not self._was_complete:
                report(f"{name} could not start: {what}")
            self._status = 1
            return
        when = f" in {delay:g} s" if delay else ""
        again = "restarting it" if self._topology.unit(name) else "giving out fresh ones"
        self._readiness.status(f"{what}; {again}")
        log.error("%s; %s%s (%d of at most %d in a row)", what, again, when, self._restarts.in_a_row(name), limit)
        self._restart_at[name] = time.monotonic() + delay

    def _start_due(self) -> None:
        """The hand-over of rings waits for it, too."""
        now = time.monotonic()
        for name in [name for name, at in self._restart_at.items() if at <= now and not self._is_ending(name)]:
            del self._restart_at[name]
            missing = [stage for stage in self._topology.unit(name) if stage.key not in self._processes.children]
            try:
                for stage in missing:
                    self._start(stage)
                    if not self._changes.is_planned(stage):
                        self._supervision.add_restart(stage.key)
            except (OSError, ipc.IpcError) as error:
                self._schedule(name, f"{name} could not be started: {error}")

    def _tell_fronts(self) -> None:
        """Where there are several replicas, or may be on other nodes: whose requests may go on elsewhere, and which
        replica is not back for long."""
        if len(self._replicas) == 1 and not self._listeners.links:
            return
        for replica in self._replicas:
            if (verdict := replica.verdict()) is not None:
                self._to_fronts("verdict", verdict.to_fields())
            if replica.stays_away():
                self._to_fronts("away", {"replica": replica.number})

    def _to_fronts(self, event: str, fields: Mapping[str, object]) -> None:
        for front in self._fronts():
            with contextlib.suppress(ChannelError):  # it is about to be noticed
                front.send(event, (), **fields)

    def _hand_over(self) -> None:
        for replica in self._replicas:
            if not replica.waits_for_rings(self._restart_at):
                continue
            try:
                for child, error in replica.hand_over():
                    log.error("%s does not listen: %s", child.title, error)
                    if child.ended_as is None:
                        self._kill(child, HUNG)
                        self._end_others(child)
            except ipc.IpcError as error:
                self._schedule(replica.rings_title, str(error))

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
        if not any(map(_drains, self._fronts())):
            log.warning("the front is being restarted: no request is left to be finished")
            self._status = 0

    def _fronts(self) -> list[Child]:
        return [child for child in self._processes.children.values() if child.spec.is_front]

    def _on_drained(self, what: str, status: int) -> None:
        """A front has ended; the server does when none is left."""
        if status:
            log.error("%s while it drained", what)
            self._drained_with = 1
        if not self._fronts():
            self._listeners.close()  # whoever connects now is to see that nobody is there
            self._status = self._drained_with

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
                child.send("reload", values=reload.live, api_keys=api_keys if child.spec.is_front else ())
        log.warning("%s", reload.describe())

    # ---- what others see ------------------------------------------------------------------------------------

    def _configure_logging(self) -> None:
        settings = self._config.pipeline.log
        configure_logging("launcher", level=settings.level, form=settings.format)


def _drains(front: Child) -> bool:
    """Whether it takes the order."""
    try:
        front.send("drain")
    except ChannelError:
        return False
    return True
