"""Versions that belong together, from the files that the installers write."""

from __future__ import annotations

import pytest

from pipeline.doctor import Level
from pipeline.doctor.ascend_versions import check_versions
from pipeline.doctor.subject import Host
from tests.pipeline.doctor.helpers import ascend_plan_of, host_of, plan_of

DRIVER = "Version={}\nascendhal_version=7.35.23\ncompatible_version_fw=[7.0.0,7.7.99]\npackage_version={}\n"
TOOLKIT = "package_name=Ascend-cann-toolkit\nversion={}\ninnerversion=V100\narch=aarch64\n"


def levels(tmp_path, monkeypatch, driver, cann, firmware):
    monkeypatch.setenv("ASCEND_HOME_PATH", "/opt/cann")
    files = {"usr__local__Ascend__driver__version.info": DRIVER.format(driver, driver)}
    if firmware:
        files["usr__local__Ascend__firmware__version.info"] = f"Version={firmware}\n"
    host = host_of(
        tmp_path / "root", **files, **{"opt__cann__aarch64-linux__ascend_toolkit_install.info": TOOLKIT.format(cann)}
    )
    found = list(check_versions(host, ascend_plan_of(tmp_path)))
    assert all("not run on a device so far" in finding.text for finding in found)
    return "".join("w" if finding.level is Level.WARN else "." for finding in found)


@pytest.mark.parametrize(
    ("driver", "cann", "firmware", "expected"),
    [
        ("26.0.rc1", "9.0.0", "7.7.0.1.231", "..."),
        ("26.1.0", "9.0.0", "7.0.0", "..."),
        ("26.0.rc1", "9.0.0", "", "..."),
        ("25.0.rc1.1", "9.0.0", "7.7.0", "w.."),
        ("25.0.rc1.1", "8.5.0", "7.7.0", ".w."),
        ("24.1.rc3.b999", "8.5.0", "7.7.0", "ww."),
        ("26.0.rc1", "9.0.0", "6.4.12.1.241", "..w"),
        ("26.0.rc1", "9.0.0", "7.8.0", "..w"),
        ("26.0.rc1", "7.0.0", "7.7.0", "ww."),
        ("", "9.0.0", "7.7.0", "w.."),
    ],
)  # fmt: skip
def test_pairs(tmp_path, monkeypatch, driver, cann, firmware, expected):
    """Driver with CANN, CANN with MindSpore 2.9, firmware with the driver; w: to be changed."""
    assert levels(tmp_path, monkeypatch, driver, cann, firmware) == expected


def test_a_host_with_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("ASCEND_HOME_PATH", raising=False)
    found = list(check_versions(Host(tmp_path / "none"), ascend_plan_of(tmp_path)))
    assert [finding.level for finding in found] == [Level.WARN, Level.WARN, Level.OK]
    assert "driver not known with CANN not known" in found[0].text


def test_no_device_is_asked_for():
    assert list(check_versions(Host(), plan_of())) == []
