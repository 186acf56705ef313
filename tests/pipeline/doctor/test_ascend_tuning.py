"""Settings of an Ascend device's host: the kernel's files, variables, and what npu-smi prints are the test's."""

from __future__ import annotations

import os

import pytest

from pipeline.doctor import Level
from pipeline.doctor.ascend_tuning import _check_hccl, check_tuning
from pipeline.doctor.subject import Host
from tests.pipeline.doctor.helpers import ascend_plan_of, host_of, npu_smi, plan_of

GOOD_FILES = {
    "proc__sys__vm__swappiness": "0\n",
    "proc__sys__kernel__numa_balancing": "0\n",
    "sys__kernel__mm__transparent_hugepage__enabled": "always [madvise] never\n",
    "proc__17__comm": "sshd\n",
}
GOOD_VARIABLES = {
    "LD_PRELOAD": "/usr/lib/aarch64-linux-gnu/libjemalloc.so.2",
    "OMP_NUM_THREADS": "1",
    "OMP_PROC_BIND": "false",
    "ASCEND_GLOBAL_LOG_LEVEL": "3",
    "HCCL_CONNECT_TIMEOUT": "600",
}
BUS = "sys__bus__pci__devices__0000:c1:00.0"


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """A host on which nothing is to be changed, as far as these checks go, but for what a test says."""

    def make(files=None, variables=None, processes="", cpus=8):
        near = {f"{BUS}__local_cpulist": "0-1023", f"{BUS}__numa_node": "1\n"}
        host = host_of(tmp_path / "root", **{**GOOD_FILES, **near, **(files or {})})
        for name, value in {**GOOD_VARIABLES, **(variables or {})}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ASCEND_PROCESS_LOG_PATH", str(tmp_path / "log"))
        npu_smi(tmp_path / "bin", "OK", processes)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        plan = ascend_plan_of(tmp_path)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
        return list(check_tuning(host, plan))

    return make


def test_nothing_to_be_changed(tuned):
    found = tuned()
    assert [finding.text for finding in found if finding.level is not Level.OK] == []
    assert len(found) >= 15
    assert all("not run on a device so far" in finding.text for finding in found)


@pytest.mark.parametrize(
    ("files", "variables", "name", "fix"),
    [
        ({"proc__sys__vm__swappiness": "60\n"}, {}, "vm.swappiness is 60", "vm.swappiness=0"),
        ({"proc__sys__kernel__numa_balancing": "1\n"}, {}, "numa_balancing is 1", "numa_balancing=0"),
        (
            {"sys__kernel__mm__transparent_hugepage__enabled": "always madvise [never]"},
            {},
            "is never",
            "echo madvise",
        ),
        ({"proc__99__comm": "irqbalance\n"}, {}, "irqbalance is running", "disable --now irqbalance"),
        ({f"{BUS}__local_cpulist": "16-31"}, {}, "CPUs of inference 0 of 8", "pipeline.cpus.inference: device"),
        ({}, {"LD_PRELOAD": ""}, "the allocator is glibc's", "LD_PRELOAD="),
        ({}, {"OMP_NUM_THREADS": "64"}, "OMP_NUM_THREADS is 64", "OMP_NUM_THREADS=1"),
        ({}, {"OMP_NUM_THREADS": ""}, "OMP_NUM_THREADS is not set, so 8", "OMP_NUM_THREADS=1"),
        ({}, {"OMP_PROC_BIND": "close"}, "OMP_PROC_BIND is close", "OMP_PROC_BIND=false"),
        ({}, {"ASCEND_GLOBAL_LOG_LEVEL": "1"}, "ASCEND_GLOBAL_LOG_LEVEL is 1", "ASCEND_GLOBAL_LOG_LEVEL=3"),
    ],
)
def test_one_thing_to_be_changed(tuned, files, variables, name, fix):
    (warning,) = [finding for finding in tuned(files, variables) if finding.level is not Level.OK]
    assert warning.level is Level.WARN
    assert name in warning.text
    assert "wanted: " in warning.text
    assert fix in warning.fix


def test_a_process_that_was_left_behind(tuned):
    row = "| 0       0                 | 6277          | python                   | 56485                   |\n"
    (warning,) = [finding for finding in tuned(processes=row) if finding.level is not Level.OK]
    assert "python (6277)" in warning.text


def test_few_cpus(tuned):
    (warning,) = [finding for finding in tuned(cpus=4) if finding.level is not Level.OK]
    assert "the number of CPUs per device is 4 (4 for 1)" in warning.text


@pytest.mark.parametrize(
    ("variables", "ranks", "named"),
    [
        ({}, 1, []),
        ({"HCCL_EXEC_TIMEOUT": "10", "HCCL_CONNECT_TIMEOUT": "5"}, 1, []),
        ({"HCCL_OP_EXPANSION_MODE": "AIV"}, 2, []),
        ({"HCCL_OP_EXPANSION_MODE": "AIV", "HCCL_EXEC_TIMEOUT": "0"}, 2, []),
        ({"HCCL_OP_EXPANSION_MODE": "AIV", "HCCL_EXEC_TIMEOUT": "soon"}, 2, []),
        ({"HCCL_OP_EXPANSION_MODE": "HOST"}, 2, ["HCCL_OP_EXPANSION_MODE"]),
        ({"HCCL_EXEC_TIMEOUT": "30", "HCCL_OP_EXPANSION_MODE": "AIV"}, 2, ["HCCL_EXEC_TIMEOUT"]),
        ({"HCCL_CONNECT_TIMEOUT": "60", "HCCL_OP_EXPANSION_MODE": "AIV"}, 2, ["HCCL_CONNECT_TIMEOUT"]),
    ],
)
def test_time_outs_of_hccl_against_our_own(variables, ranks, named):
    found = list(_check_hccl(variables, ranks, hang_s=30.0))
    assert [finding.text.split()[0] for finding in found if finding.level is Level.WARN] == named
    assert "30 s" in found[1].text


def test_errors_that_cann_has_logged(tuned, tmp_path):
    directory = tmp_path / "log/debug/plog"
    directory.mkdir(parents=True)
    old, new = directory / "plog-1_20260101.log", directory / "plog-2_20260102.log"
    old.write_text("[ERROR] HCCL EI0006: Getting socket times out\n")
    os.utime(old, (1, 1))
    new.write_text("[ERROR] RUNTIME rtStreamCreate failed, ErrCode=207008\n")
    (warning,) = [finding for finding in tuned() if finding.level is not Level.OK]
    assert "207008: the device has no stream left" in warning.text
    assert new.name in warning.fix
    new.write_text("[INFO] all is well\n")
    assert all(finding.level is Level.OK for finding in tuned())


def test_nothing_is_said_without_a_device():
    assert list(check_tuning(Host(), plan_of())) == []
