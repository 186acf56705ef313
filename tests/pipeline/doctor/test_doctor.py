"""The doctor: on this host as it is, on this host with something taken away, and on hosts made of files."""

from __future__ import annotations

import importlib
import json
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import load_configuration
from pipeline.doctor import Finding, Level, cpus, examine, kernel, limits, memory, place, software
from pipeline.doctor.ascend import check_ascend
from pipeline.doctor.subject import Host, Plan

ROOT = Path(__file__).parents[3]
EMULATED = ROOT / "configs/emulated_910b.yaml"
DEMO = ROOT / "configs/demo.yaml"


def doctor(*arguments, before=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "pipeline.doctor", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, preexec_fn=before,
        env=os.environ | environment,
    )  # fmt: skip


def plan_of(*overrides, path=EMULATED):
    return Plan.of(load_configuration(path, ("serving_config.server_port=0", *overrides)))


def host_of(tmp_path, **files):
    """A host of files: keywords with ``__`` for ``/``."""
    for name, content in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return Host(tmp_path)


def only(findings) -> Finding:
    (finding,) = findings
    return finding


# ---- this host ---------------------------------------------------------------------------------------------------


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


# ---- with something taken away -----------------------------------------------------------------------------------


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


def test_few_descriptors():
    done = doctor(
        "--config", str(EMULATED), "--set", "serving_config.server_port=0",
        before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (700, 700)),
    )  # fmt: skip
    assert done.returncode == 1
    assert "1513 file descriptors are needed, 700 are allowed" in done.stdout
    assert "LimitNOFILE=1513" in done.stdout
    assert "lower pipeline.max_connections to at most 187" in done.stdout
    fits = doctor(
        "--config", str(EMULATED), "--set", "serving_config.server_port=0", "--set", "pipeline.max_connections=187",
        before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (600, 700)),
    )  # fmt: skip
    assert fits.returncode == 0
    assert "the launcher raises its limit of 600" in fits.stdout


def test_little_address_space():
    done = doctor("--json", before=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)))
    assert any(
        "address space is limited to 2048.0 MiB" in found["text"] for found in json.loads(done.stdout)["findings"]
    )


HUGE = ("pipeline.rings.logits_slots=64", "pipeline.max_rows=4096", "pipeline.token_budget=4096",
        "pa_config.num_blocks=8192", "model_config.vocab_size=10000000")  # fmt: skip


def test_rings_that_do_not_fit():
    """Ten terabytes of them."""
    found = only(memory.check_shared_memory(Host(), plan_of(*HUGE)))
    assert found.level is Level.FAIL
    assert "at least" in found.fix


def test_a_model_that_does_not_fit():
    done = doctor("--config", str(DEMO), "--set", "pa_config.num_blocks=100000000")
    assert done.returncode == 1
    assert "lower num_blocks from 100000000 to at most" in done.stdout


def test_little_memory(tmp_path):
    machine = host_of(tmp_path, proc__meminfo="MemAvailable: 300000 kB\n")
    found = only(memory.check_room(machine, plan_of(path=DEMO)))
    assert found.level is Level.FAIL
    assert "the kernel would kill a stage" in found.text
    group = host_of(
        tmp_path, **{"proc__meminfo": "MemAvailable: 99000000 kB\n", "proc__self__cgroup": "0::/x\n",
                     "sys__fs__cgroup__x__memory.max": f"{200 << 20}\n", "sys__fs__cgroup__x__memory.current": "0\n"},
    )  # fmt: skip
    assert "within the control group's limit of 200.0 MiB" in only(memory.check_room(group, plan_of())).text
    assert only(memory.check_room(Host(), plan_of(path=DEMO))).level is Level.OK


def test_files_that_are_not_here(tmp_path):
    done = doctor("--config", str(ROOT / "configs/llama_7b_kbk_pa_dyn.yaml"), "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    texts = [found["text"] for found in report["findings"] if found["topic"] == "config"]
    assert len(texts) == 3
    assert all("does not exist" in text for text in texts)


def test_a_configuration_with_a_mistake(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("model_config: {vocab_size: -1}\n")
    done = doctor("--config", str(path))
    assert done.returncode == 1
    assert "vocab_size is -1" in done.stdout
    assert " ok  rings" in done.stdout  # the host is checked all the same


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


# ---- hosts made of files -----------------------------------------------------------------------------------------


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


def test_governors(tmp_path):
    host = host_of(
        tmp_path,
        sys__devices__system__cpu__cpu0__cpufreq__scaling_governor="performance\n",
        sys__devices__system__cpu__cpu1__cpufreq__scaling_governor="powersave\n",
    )
    found = only(cpus.check_governor(host))
    assert found.level is Level.WARN
    assert "powersave on 1" in found.text
    assert "cpupower" in found.fix
    assert only(cpus.check_governor(Host(tmp_path / "none"))).level is Level.OK


def test_swap_and_huge_pages(tmp_path):
    host = host_of(
        tmp_path,
        proc__swaps="Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n",
        sys__kernel__mm__transparent_hugepage__defrag="[always] defer madvise never\n",
    )
    assert "/dev/sda2" in only(memory.check_swap(host)).text
    assert "madvise" in only(memory.check_huge_pages(host)).fix
    none = host_of(tmp_path / "none", proc__swaps="Filename Type Size Used Priority\n")
    assert only(memory.check_swap(none)).level is Level.OK
    assert not list(memory.check_huge_pages(none))


def test_numa_nodes(tmp_path):
    two = host_of(
        tmp_path,
        sys__devices__system__node__online="0-1\n",
        sys__devices__system__node__node0__cpulist="0-1\n",
    )
    found = only(cpus.check_nodes(two, plan_of()))
    assert (found.level, found.fix) == (Level.WARN, "pipeline.cpus.inference: [0, 1]")
    cpu = min(os.sched_getaffinity(0))
    assert only(cpus.check_nodes(two, plan_of(f"pipeline.cpus.inference={cpu}"))).level is Level.OK
    assert only(cpus.check_nodes(Host(tmp_path / "none"), plan_of())).level is Level.OK


def test_stages_pinned_on_top_of_each_other():
    cpu = min(os.sched_getaffinity(0))
    both = plan_of(f"pipeline.cpus.inference={cpu}", f"pipeline.cpus.sampling={cpu}")
    assert only(cpus.check_pinning(Host(), both)).level is Level.WARN
    one = plan_of(f"pipeline.cpus.inference={cpu}")
    assert only(cpus.check_pinning(Host(), one)).text == f"pinned: inference to {cpu}"
    assert not list(cpus.check_pinning(Host(), plan_of()))


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"proc__self__cgroup": "0::/a/b\n", "sys__fs__cgroup__a__cpu.max": "150000 100000\n"}, "1.5"),
        ({"proc__self__cgroup": "2:cpu,cpuacct:/a\n", "sys__fs__cgroup__cpu__a__cpu.cfs_quota_us": "50000\n",
          "sys__fs__cgroup__cpu__a__cpu.cfs_period_us": "100000\n"}, "0.5"),
    ],
    ids=["v2", "v1"],
)  # fmt: skip
def test_less_than_two_cpus_of_time(tmp_path, files, quota):
    host = host_of(tmp_path, **files)
    assert f"a quota of {quota}" in only(cpus.check_count(host)).text
    assert "--cpuset-cpus" in only(cpus.check_quota(host)).fix
    assert not list(cpus.check_quota(Host(tmp_path / "none")))


def test_few_processes(tmp_path):
    host = host_of(
        tmp_path, **{"proc__self__cgroup": "0::/x\n", "sys__fs__cgroup__x__pids.max": "20\n",
                     "sys__fs__cgroup__x__pids.current": "5\n"},
    )  # fmt: skip
    found = only(limits.check_tasks(host, plan_of()))
    assert (found.level, "15 more processes" in found.text) == (Level.WARN, True)
    assert only(limits.check_tasks(Host(tmp_path / "none"), plan_of())).level is Level.OK


def test_packages_out_of_range(monkeypatch):
    found = list(software.check_packages(Host(), None))
    assert [finding.level for finding in found] == [Level.OK]
    monkeypatch.setattr(software, "_version", {"numpy": "2.1.0"}.get)
    texts = {finding.text for finding in software.check_packages(Host(), plan_of())}
    assert "numpy is 2.1.0; <2,>=1.26 is needed" in texts
    assert any(text.startswith("orjson is missing") for text in texts)
    assert not any("mindspore" in text for text in texts)  # an emulated device does without
    assert any("mindspore is missing" in finding.text for finding in software.check_packages(Host(), None))


@pytest.mark.parametrize(
    ("version", "ranges", "fits"),
    [("1.26.4", "<2,>=1.26", True), ("1.25.9", "<2,>=1.26", False), ("2.0", "<2", False), ("2.9.0rc1", ">=2.9", True),
     ("0.54.0", "<0.55,>=0.54", True), ("3.1.6", ">=3.1.6", True), ("3.1.5", ">=3.1.6", False), ("7", "", True)],
)  # fmt: skip
def test_versions(version, ranges, fits):
    assert software.fits(version, ranges) is fits


# ---- Ascend ------------------------------------------------------------------------------------------------------

TABLE = """\
| npu-smi 24.1.rc2                 Version: 24.1.rc2                                             |
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B4               | HEALTH             | 99.1        37                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3342 / 32768         |
"""


@pytest.fixture
def ascend_plan(tmp_path):
    path = tmp_path / "ascend.yaml"
    path.write_text(f"pipeline: {{model_dir: {ROOT / 'model/demo'}, runner: {{device: Ascend}}}}\n")
    return Plan.of(load_configuration(path))


def npu_smi(directory, health):
    """A program of this name that prints what Huawei's does."""
    directory.mkdir(exist_ok=True)
    program = directory / "npu-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{TABLE.replace('HEALTH', health)}END\n")
    program.chmod(0o755)


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


def test_no_device_is_asked_for():
    assert only(check_ascend(Host(), plan_of())).level is Level.OK
