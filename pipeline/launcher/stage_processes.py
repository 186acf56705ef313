"""The stage processes: started with what each needs, waited for together, stopped."""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from types import MappingProxyType

import ipc
from model.runner import RunnerFacts
from pipeline.config import Configuration
from pipeline.front.delivery.journal import make_journal
from pipeline.launcher.child import Child, anonymous_file
from pipeline.launcher.listening import Listeners
from pipeline.launcher.meetings import Meetings
from pipeline.launcher.signals import Signals
from pipeline.runtime.control_channel import Channel, Message
from pipeline.runtime.generations import END
from pipeline.runtime.stage import Specification
from pipeline.runtime.vocabulary import VocabularyFile
from pipeline.stats import StatsPage
from pipeline.wire.api_key import ApiKey
from pipeline.wire.step import Shapes
from pipeline.wire.topology import StageSpec

_STOP_GRACE_S = 1.5


def stage_command(stage: StageSpec) -> list[str]:
    """Not with the working directory in the path: a model's folder may hold a module with the name of one of ours.
    Numbers in the stage's key, where there are several, are for people who look at processes."""
    return [sys.executable, "-P", "-m", f"pipeline.{stage.name}", *stage.key.split()[1:]]


class StageProcesses:
    """`children`, by the keys of their stages, holds those that are alive, or whose death `wait` has not returned.
    `command` starts a stage; the descriptor of its specification is appended. `fingerprints` are those of adapters,
    by name; `vocabulary` is what fronts are given, and of `spans` each its ring, by its key."""

    def __init__(
        self,
        page: StatsPage,
        shapes: Shapes,
        facts: RunnerFacts,
        listeners: Listeners,
        api_keys: tuple[ApiKey, ...],
        signals: Signals,
        command: Callable[[StageSpec], Sequence[str]] = stage_command,
        fingerprints: Mapping[str, bytes] = MappingProxyType({}),
        vocabulary: VocabularyFile | None = None,
        spans: Mapping[str, ipc.ByteRing] = MappingProxyType({}),
    ) -> None:
        self.children: dict[str, Child] = {}
        self.api_keys = api_keys  # for fronts alone
        self._topology, self._command, self._vocabulary = page.topology, command, vocabulary
        self._page, self._shapes, self._facts, self._listeners = page, shapes, facts, listeners
        self._fingerprints = {name: fingerprint.hex() for name, fingerprint in fingerprints.items()}
        self._signals, self._spans = signals, spans
        self.meetings = Meetings(page.topology)
        self._journals: dict[str, int] = {}  # of fronts, by their keys; each outlives the process
        self._death_read, self._death_write = os.pipe()  # breaks when the launcher dies
        self._selector = selectors.DefaultSelector()
        self._selector.register(signals, selectors.EVENT_READ)

    def start(self, stage: StageSpec, config: Configuration) -> Child:
        """Raises OSError when no process can be made."""
        with ExitStack() as stack:
            channel, theirs = Channel.pair()
            stack.callback(theirs.close)
            config_fd = stack.enter_context(anonymous_file("configuration", config.to_yaml().encode()))
            ranks_fd = self.meetings.fd_of(stage, self.children)
            listeners = self._listeners if stage.is_front else Listeners([], [])
            specification = Specification(
                stage=stage.key,
                topology=asdict(self._topology),
                config_fd=config_fd,
                control_fd=theirs.fileno(),
                death_fd=self._death_read,
                stats_fd=self._page.segment.fd,
                listen_fds=_fds(listeners.api),
                metrics_fds=_fds(listeners.metrics),
                link_fds=_fds(listeners.links),
                vocabulary_fd=self._vocabulary.fd if stage.is_front and self._vocabulary else None,
                ranks_fd=ranks_fd,
                api_keys=self.api_keys if stage.is_front else (),
                spans_fds=self._spans[stage.key].handle.fds if stage.key in self._spans else (),
                journal_fd=self._journal_of(stage, config),
                shapes={key: getattr(self._shapes, key) for key in self._shapes.__slots__},
                facts=asdict(self._facts),
                fingerprints=self._fingerprints,
            )
            fd = stack.enter_context(anonymous_file("specification", specification.to_json()))
            try:
                replicas, command = self._topology.replicas_of(stage), self._command(stage)
                child = Child.start(stage, replicas, command, fd, specification.fds, channel)
            except BaseException:
                channel.close()
                raise
        self.children[stage.key] = child
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)
        self._selector.register(channel, selectors.EVENT_READ, child)
        return child

    def _journal_of(self, stage: StageSpec, config: Configuration) -> int | None:
        """Made for the first front of this key, and given to those that follow it. Raises SegmentError."""
        if not stage.is_front:
            return None
        if stage.key not in self._journals:
            self._journals[stage.key] = make_journal(config.pipeline.kept_bytes)
        return self._journals[stage.key]

    def wait(self, timeout: float) -> Iterator[tuple[Child, Message | None]]:
        """Messages of the stages, and None for a stage that died, which is then no longer in `children`; deaths come
        first."""
        events = self._selector.select(max(timeout, 0))
        if any(key.data is None for key, _ in events):
            self._signals.clear()
        children: list[Child] = list(dict.fromkeys(key.data for key, _ in events if key.data is not None))
        for child in sorted(children, key=lambda child: not child.dead):
            channel, dead = child.channel, child.dead  # read before the messages, which are its last ones then
            for message in child.messages():
                yield child, message
            if channel is not None and (dead or child.channel is None):
                self._selector.unregister(channel)
            if dead:
                self._selector.unregister(child.pidfd)
                del self.children[child.name]
                yield child, None

    def stop(self) -> None:
        """All stages: first by a signal that they handle, then by SIGKILL."""
        deadline = time.monotonic() + _STOP_GRACE_S
        for child in self.children.values():
            child.signal(END)
        for child in self.children.values():
            child.wait(deadline)
            child.reap()
        self.children.clear()

    def close(self) -> None:
        self.stop()
        self._selector.close()
        self.meetings.close()
        for journal in self._journals.values():
            os.close(journal)
        os.close(self._death_read)
        os.close(self._death_write)


def _fds(listeners: Sequence[socket.socket]) -> tuple[int, ...]:
    return tuple(listener.fileno() for listener in listeners)
