"""What `python -m pipeline.ray` looks at before it starts Ray, which need not be installed here."""

from __future__ import annotations

import importlib.util
import socket

import pytest

from pipeline.ray.__main__ import main


def test_a_port_that_is_in_use_is_told_at_once(capsys):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert main(["model/demo", "--port", str(port)]) == 1
    assert capsys.readouterr().err == f"port {port} is in use; another one: --port N, 0 for any\n"


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_says_how_to_install_it(capsys):
    assert main(["model/demo", "--port", "0"]) == 1
    assert "pip install 'ringserve[ray]'" in capsys.readouterr().err
