"""The doctor as a whole, on this host."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys

import pytest

from pipeline.doctor import Level, examine
from pipeline.doctor.__main__ import main
from pipeline.doctor.subject import Host
from tests.pipeline.doctor.helpers import DEMO, EMULATED, ROOT, doctor


@pytest.mark.parametrize("path", [DEMO, EMULATED], ids=lambda path: path.stem)
def test_this_host_can_run_what_is_shipped(path):
    done = doctor("--config", str(path), "--set", "serving_config.server_port=0")
    assert done.returncode == 0, done.stdout
    assert " ok  rings" in done.stdout
    assert "0 failures" in done.stdout


def test_without_a_configuration_only_the_host_is_checked():
    done = doctor("--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"], report["config"]) == (0, True, None)
    topics = {finding["topic"] for finding in report["findings"]}
    assert {"kernel", "rings", "clock", "software", "cpus"} <= topics
    assert not topics & {"network", "limits", "ascend"}


def test_mindspore_is_not_imported():
    script = (
        "import sys; from pipeline.doctor.__main__ import main; main(['--config', sys.argv[1]]); "
        "raise SystemExit('mindspore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(DEMO)], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0


def test_a_check_that_breaks_is_a_finding(monkeypatch):
    def check_nothing(_):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(importlib.import_module("pipeline.doctor.examine"), "_HOST_CHECKS", (check_nothing,))
    found = examine(Host(), None)
    assert found[0].level is Level.FAIL
    assert "the check 'nothing' itself failed: ZeroDivisionError" in found[0].text
    assert len(found) > 1


def test_a_configuration_with_a_mistake(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("model_config: {vocab_size: -1}\n")
    done = doctor("--config", str(path))
    assert done.returncode == 1
    assert "vocab_size is -1" in done.stdout
    assert " ok  rings" in done.stdout  # the host is checked all the same


def test_error_codes_are_explained(capsys, monkeypatch):
    assert main(["--explain", "ErrCode=207008"]) == 0
    assert "the device has no stream left" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("EI0002: timeout"))
    assert main(["--explain", "-"]) == 0
    assert "find the device that stopped first" in capsys.readouterr().out
    assert main(["--explain", "nothing"]) == 1
