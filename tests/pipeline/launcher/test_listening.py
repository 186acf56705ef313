"""The launcher's sockets: all of them or none, and whose address they are at."""

from __future__ import annotations

import contextlib
import socket

import pytest

from pipeline.config import load_configuration
from pipeline.launcher.listening import SEND_BUFFER_BYTES, Listeners, PortInUseError, address, exposed
from scripts.lab.paths import ROOT


def configured(*overrides):
    path = ROOT / "configs" / "emulated_910b.yaml"
    return load_configuration(path, ["serving_config.server_port=0", *overrides])


def test_an_address_of_each_kind_and_one_for_metrics():
    config = configured("pipeline.hosts=[127.0.0.1, 0.0.0.0]", "pipeline.metrics_port=0")
    with contextlib.closing(Listeners.open(config)) as listeners:
        assert [exposed(listener) for listener in listeners.api] == [False, True]
        (metrics,) = listeners.metrics
        assert address(metrics) == f"http://127.0.0.1:{metrics.getsockname()[1]}"
        for listener in (*listeners.api, metrics):
            assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * SEND_BUFFER_BYTES
            socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=10).close()


def test_without_a_port_of_their_own_metrics_have_no_socket():
    with contextlib.closing(Listeners.open(configured())) as listeners:
        assert listeners.metrics == []


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_version_6():
    try:
        listeners = Listeners.open(configured("pipeline.hosts=['::1']"))
    except PortInUseError as error:
        pytest.skip(str(error))
    with contextlib.closing(listeners):
        assert address(listeners.api[0]).startswith("http://[::1]:")
        assert not exposed(listeners.api[0])


@pytest.mark.parametrize("key", ["serving_config.server_port", "pipeline.metrics_port"])
def test_a_port_in_use_is_named_and_nothing_stays_open(key):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError, match=rf"can't listen on 127\.0\.0\.1:{port}: .* --set {key}=…"):
            Listeners.open(configured("pipeline.hosts=[127.0.0.1]", f"{key}={port}"))
