"""What the launcher prints for the user who started the server."""

from __future__ import annotations

from pipeline.config import Configuration
from pipeline.launcher.listening import Listeners, address, exposed, host_and_port
from pipeline.runtime.nonblocking_stderr import write_stderr

OPEN_TO_ALL = (
    "warning: other machines may reach this server, and no API key is needed to use it; "
    "set RINGSERVE_API_KEY or pipeline.api_keys_file, or listen on 127.0.0.1"
)


def report(text: str) -> None:
    """A line on standard error; dropped if it is not read."""
    write_stderr(f"ringserve: {text}\n")


def announce(config: Configuration, listeners: Listeners, *, locked: bool, took_s: float) -> None:
    """The server is ready, and where. `locked`: a key is needed to use it."""
    report(f"ready after {took_s:.1f} s")
    if not locked and any(map(exposed, listeners.api)):
        report(OPEN_TO_ALL)
    for listener in listeners.metrics:
        report(f"metrics at {address(listener)}/metrics")
    for listener in listeners.links:
        report(f"routers may link to {host_and_port(listener)}")
    if not listeners.api:
        return
    for listener in listeners.api:
        report(f"listening on {address(listener)}")
    report(f"live page: {address((listeners.metrics or listeners.api)[-1])}/")
    key = " -H 'authorization: Bearer …'" if locked else ""
    base, route = address(listeners.api[-1]), config.serving_config.model_route
    report(
        f"try: curl {base}/models/{route}/generate -H 'content-type: application/json'{key} "
        """-d '{"inputs": "What is a ring buffer?", "parameters": {"max_new_tokens": 60}}'"""
    )
