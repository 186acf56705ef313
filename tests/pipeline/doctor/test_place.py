"""Addresses and files that a configuration names."""

from __future__ import annotations

import json
import socket

from pipeline.doctor import Level, place
from pipeline.doctor.subject import Host
from tests.pipeline.doctor.helpers import DEMO, EMULATED, ROOT, doctor, only, plan_of


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = doctor("--config", str(EMULATED), "--set", f"serving_config.server_port={port}")
    assert done.returncode == 1
    assert f"fail  network    can't listen on 127.0.0.1 port {port}: Address already in use" in done.stdout
    assert "--set serving_config.server_port" in done.stdout


def test_an_address_of_another_host():
    found = only(place.check_port(Host(), plan_of("serving_config.server_ip=192.0.2.1")))
    assert (found.level, found.topic) == (Level.FAIL, "network")
    assert "address of this host" in found.fix


def test_a_server_that_stands_open(monkeypatch, tmp_path):
    monkeypatch.delenv("RINGSERVE_API_KEY", raising=False)
    for host, level in (("127.0.0.1", Level.OK), ("::1", Level.OK), ("0.0.0.0", Level.WARN)):
        assert only(place.check_keys(Host(), plan_of(f"serving_config.server_ip='{host}'"))).level is level
    monkeypatch.setenv("RINGSERVE_API_KEY", "a-key-of-some-length")
    found = only(place.check_keys(Host(), plan_of("serving_config.server_ip=0.0.0.0")))
    assert (found.level, found.text) == (Level.OK, "API keys: 1")
    empty = tmp_path / "keys"
    empty.write_text("# none\n")
    assert only(place.check_keys(Host(), plan_of(f"pipeline.api_keys_file={empty}"))).level is Level.FAIL


def test_files_that_are_not_here(tmp_path):
    done = doctor("--config", str(ROOT / "configs/llama_7b_kbk_pa_dyn.yaml"), "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    texts = [found["text"] for found in report["findings"] if found["topic"] == "config"]
    assert len(texts) == 3
    assert all("does not exist" in text for text in texts)


def test_a_compile_cache_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    plan = plan_of(f"pipeline.runner.compile_cache={file}", path=DEMO)
    found = only(place.check_compile_cache(Host(), plan))
    assert found.level is Level.FAIL
    assert "is not writable" in found.text
    plan = plan_of(f"pipeline.runner.compile_cache={tmp_path}/new/cache", path=DEMO)
    assert only(place.check_compile_cache(Host(), plan)).level is Level.OK
    assert [*tmp_path.iterdir()] == [file]  # the check leaves nothing
