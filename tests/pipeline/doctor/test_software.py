"""Versions of packages."""

from __future__ import annotations

import pytest

from pipeline.doctor import Level, software
from pipeline.doctor.subject import Host
from tests.model.conftest import needs_openvino
from tests.pipeline.doctor.helpers import DEMO, plan_of


def test_packages_out_of_range(monkeypatch):
    found = list(software.check_packages(Host(), None))
    assert [finding.level for finding in found] == [Level.OK]
    monkeypatch.setattr(software, "_version", {"numpy": "2.1.0"}.get)
    texts = {finding.text for finding in software.check_packages(Host(), plan_of())}
    assert "numpy is 2.1.0; <2,>=1.26 is needed" in texts
    assert any(text.startswith("orjson is missing") for text in texts)
    assert not any("mindspore" in text for text in texts)  # an emulated device does without
    assert any("mindspore is missing" in finding.text for finding in software.check_packages(Host(), None))


@needs_openvino
def test_openvino_is_looked_at_where_it_computes(monkeypatch):
    plan = plan_of("pipeline.runner.kind=openvino", path=DEMO)
    (finding,) = software.check_packages(Host(), plan)
    assert (finding.level, "openvino 2026.4" in finding.text) == (Level.OK, True)
    monkeypatch.setattr(software, "_version", {"openvino": "2026.5.0"}.get)
    texts = {finding.text for finding in software.check_packages(Host(), plan)}
    assert "openvino is 2026.5.0; <2026.5,>=2026.4 is needed" in texts


@pytest.mark.parametrize(
    ("version", "ranges", "fits"),
    [("1.26.4", "<2,>=1.26", True), ("1.25.9", "<2,>=1.26", False), ("2.0", "<2", False), ("2.9.0rc1", ">=2.9", True),
     ("0.54.0", "<0.55,>=0.54", True), ("3.1.6", ">=3.1.6", True), ("3.1.5", ">=3.1.6", False), ("7", "", True)],
)  # fmt: skip
def test_versions(version, ranges, fits):
    assert software.fits(version, ranges) is fits
