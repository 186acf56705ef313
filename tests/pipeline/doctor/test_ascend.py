"""Ascend devices, as reported by a program of ours."""

from __future__ import annotations

import json
import os

import pytest

from pipeline.doctor import Level
from pipeline.doctor.ascend import check_ascend
from pipeline.doctor.subject import Host
from tests.pipeline.doctor.helpers import ascend_plan_of, host_of, npu_smi, only, plan_of


@pytest.fixture
def ascend_plan(tmp_path):
    return ascend_plan_of(tmp_path)


def test_a_host_without_a_device(tmp_path, ascend_plan, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    found = list(check_ascend(Host(tmp_path), ascend_plan))
    failures = [finding for finding in found if finding.level is Level.FAIL]
    assert "davinci0" in failures[0].text
    assert "--device=" in failures[0].fix
    assert "libascendcl.so" in failures[1].text
    assert "set_env.sh" in failures[1].fix
    assert all("has not run on a device" in finding.text for finding in found)


@pytest.mark.parametrize(("health", "level"), [("OK", Level.OK), ("Alarm", Level.FAIL)])
def test_a_host_with_a_device(tmp_path, ascend_plan, monkeypatch, health, level):
    """All but the device: nodes, driver's version, library, and what npu-smi prints are files here."""
    npu_smi(tmp_path / "bin", health)
    files = {f"dev__{name}": "" for name in ("davinci0", "davinci_manager", "devmm_svm", "hisi_hdc")}
    host = host_of(
        tmp_path,
        **files,
        **{"usr__local__Ascend__driver__version.info": "Version=24.1.rc2\n", "lib__libascendcl.so": ""},
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "lib"))
    monkeypatch.setenv("ASCEND_HOME_PATH", "/usr/local/Ascend/ascend-toolkit/latest")
    found = list(check_ascend(host, ascend_plan))
    assert [finding.level for finding in found] == [Level.OK, Level.OK, Level.OK, level]
    assert "Version=24.1.rc2" in found[1].text
    assert "0000:c1:00.0" in found[3].text


@pytest.mark.parametrize(("devices", "level"), [((0, 1), Level.OK), ((0, 1, 2), Level.FAIL)])
def test_every_ranks_device_and_their_table(tmp_path, monkeypatch, devices, level):
    listed = [{"device_id": str(device), "rank_id": str(rank)} for rank, device in enumerate(devices)]
    table = tmp_path / "hccl.json"
    table.write_text(json.dumps({"server_list": [{"device": listed}]}))
    monkeypatch.setenv("RANK_TABLE_FILE", str(table))
    found = list(check_ascend(Host(tmp_path), ascend_plan_of(tmp_path, "pipeline.ranks=2")))
    assert [f"davinci{device}" in one.text for device, one in enumerate(found[:2])] == [True, True]
    assert found[-1].level is level
    assert "RANK_TABLE_FILE" in found[-1].text
    assert ("lists 3 devices, but there are 2 ranks" in found[-1].text) == (level is Level.FAIL)


def test_no_device_is_asked_for():
    assert only(check_ascend(Host(), plan_of())).level is Level.OK
