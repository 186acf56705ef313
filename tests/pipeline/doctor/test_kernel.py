"""What the kernel is and how it is set up."""

from __future__ import annotations

from pipeline.doctor import Level, kernel
from pipeline.doctor.subject import Host
from tests.pipeline.doctor.helpers import host_of, only


def test_a_slow_clock(tmp_path):
    path = "sys__devices__system__clocksource__clocksource0__current_clocksource"
    found = only(kernel.check_clock(host_of(tmp_path, **{path: "hpet\n"})))
    assert (found.level, found.topic) == (Level.WARN, "clock")
    assert "hpet" in found.text
    assert "available_clocksource" in found.fix
    assert only(kernel.check_clock(host_of(tmp_path, **{path: "arch_sys_counter\n"}))).level is Level.OK


def test_proc_that_is_not_mounted(tmp_path):
    assert only(kernel.check_proc(Host(tmp_path))).level is Level.FAIL
    assert only(kernel.check_proc(Host())).level is Level.OK
