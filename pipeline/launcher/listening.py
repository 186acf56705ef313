"""The launcher's listening sockets. Bound before anything is loaded, so that a port in use is reported at once, and
connections survive a restart of the front."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from typing import Self

from pipeline.config import Configuration
from pipeline.link.connection import split_place

SEND_BUFFER_BYTES = 128 << 10
"""What the kernel takes of an answer that its client does not read (it doubles that for its own needs). Left to
itself it takes up to 4 MiB a connection: whole answers vanish there before it shows that the client does not read."""


class PortInUseError(Exception):
    """An address can't be listened on."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """All sockets of a server; to be closed."""

    api: list[socket.socket]
    metrics: list[socket.socket]
    links: list[socket.socket] = field(default_factory=list)

    @classmethod
    def open(cls, config: Configuration) -> Self:
        """A node has links in place of an API. Raises PortInUseError."""
        listeners = cls([], [])
        try:
            if config.pipeline.link.listen is None:
                listeners.api.extend(listen(config))
            else:
                listeners.links.append(listen_for_links(config.pipeline.link.listen))
            listeners.metrics.extend(listen_for_metrics(config))
        except PortInUseError:
            listeners.close()
            raise
        return listeners

    def close(self) -> None:
        for listener in (*self.api, *self.metrics, *self.links):
            listener.close()


def listen(config: Configuration) -> list[socket.socket]:
    """For the API: one socket per address. Raises PortInUseError."""
    sockets: list[socket.socket] = []
    port, backlog = config.serving_config.server_port, config.pipeline.max_connections
    for host in config.pipeline.hosts:
        try:
            sockets.append(_bound(host, port, backlog))
        except OSError as error:
            for made in sockets:
                made.close()
            raise _in_use(host, port, "serving_config.server_port", error) from error
    return sockets


def listen_for_metrics(config: Configuration) -> list[socket.socket]:
    """For /metrics and /debug, where they have a port of their own. Raises PortInUseError."""
    host, port = config.pipeline.metrics_host, config.pipeline.metrics_port
    if port is None:
        return []
    try:
        return [_bound(host, port, backlog=64)]
    except OSError as error:
        raise _in_use(host, port, "pipeline.metrics_port", error) from error


def listen_for_links(place: str) -> socket.socket:
    """Of a node. Raises PortInUseError."""
    host, port = split_place(place)
    try:
        return _bound(host, port, backlog=64)
    except OSError as error:
        raise _in_use(place.rpartition(":")[0], port, "pipeline.link.listen", error) from error


def host_and_port(listener: socket.socket) -> str:
    """As `pipeline.nodes` has it."""
    return address(listener).removeprefix("http://")


def address(listener: socket.socket) -> str:
    """As a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def exposed(listener: socket.socket) -> bool:
    """Whether other machines may be able to connect."""
    return not ipaddress.ip_address(listener.getsockname()[0].split("%")[0]).is_loopback


def _bound(host: str, port: int, backlog: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # connections inherit it
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def _in_use(host: str, port: int, key: str, error: OSError) -> PortInUseError:
    return PortInUseError(
        f"can't listen on {host}:{port}: {error.strerror}; choose another with --set {key}=… (0: any free port)"
    )
