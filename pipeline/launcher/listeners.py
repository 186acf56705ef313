"""The sockets that the server listens on."""

from __future__ import annotations

import socket

from pipeline.config import Configuration


class PortInUseError(Exception):
    """An address can't be listened on."""


def listen(config: Configuration) -> list[socket.socket]:
    """Bound by the launcher, so that a port in use is told before anything is loaded, and connections that nobody has
    accepted yet survive a front that dies."""
    sockets: list[socket.socket] = []
    port = config.serving_config.server_port
    for host in config.pipeline.hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((host, port))
            listener.listen(config.pipeline.max_connections)
        except OSError as error:
            for made in (*sockets, listener):
                made.close()
            raise PortInUseError(
                f"{host}:{port} can't be listened on: {error.strerror}; choose another with "
                "--set serving_config.server_port=… (0: any free one)"
            ) from error
        sockets.append(listener)
    return sockets


def urls(sockets: list[socket.socket]) -> list[str]:
    """Where clients find it."""
    addresses = [listener.getsockname()[:2] for listener in sockets]
    return [f"http://{f'[{host}]' if ':' in host else host}:{port}" for host, port in addresses]
