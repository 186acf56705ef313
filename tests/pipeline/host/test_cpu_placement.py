"""Where stages run, and how long they stay awake there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import ConfigurationError, load_configuration
from pipeline.host.cpu_placement import fit_as, fit_to_host, spin_us, usable_cpus
from pipeline.host.facts import HostError

ROOT = Path(__file__).parents[3]
AWAKE, ASLEEP = 100.0, 0.0


def configured(*overrides, name="emulated_910b"):
    return load_configuration(ROOT / f"configs/{name}.yaml", overrides, other_host=True)


# ---- staying awake ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpus", "inference", "others"),
    [(0.5, ASLEEP, ASLEEP), (1, ASLEEP, ASLEEP), (1.9, ASLEEP, ASLEEP), (2, AWAKE, ASLEEP), (3, AWAKE, ASLEEP),
     (3.9, AWAKE, ASLEEP), (4, AWAKE, AWAKE), (192, AWAKE, AWAKE)],
)  # fmt: skip
def test_with_a_device_of_its_own_a_stage_needs_a_cpu_of_its_own(cpus, inference, others):
    for config in (configured(), configured("pipeline.runner.device=Ascend", name="demo")):
        assert spin_us("inference", config, cpus) == inference
        assert {spin_us(stage, config, cpus) for stage in ("preprocess", "sampling")} == {others}


@pytest.mark.parametrize(("threads", "others"), [("null", ASLEEP), ("64", ASLEEP), ("62", ASLEEP), ("61", AWAKE)])
def test_a_model_on_the_cpus_keeps_all_that_it_computes_on(threads, others):
    config = configured(f"pipeline.runner.threads={threads}", name="demo")
    assert {spin_us(stage, config, 64) for stage in ("preprocess", "sampling")} == {others}
    assert spin_us("inference", config, 64) == AWAKE


def test_what_is_configured_is_what_happens():
    config = configured("pipeline.spin_us.sampling=7", "pipeline.spin_us.inference=0")
    assert spin_us("sampling", config, 1) == 7
    assert spin_us("inference", config, 64) == 0


def test_a_stage_apart_from_the_model_takes_nothing_from_it():
    apart = configured("pipeline.cpus.inference=[0]", "pipeline.cpus.sampling=[1]", "pipeline.cpus.preprocess=[0,1]")
    assert spin_us("sampling", apart, 2) == AWAKE
    assert spin_us("preprocess", apart, 2) == ASLEEP


# ---- on this host -------------------------------------------------------------------------------------------------


def test_everything_is_decided_before_the_stages_start():
    cpu = min(os.sched_getaffinity(0))
    config = fit_to_host(configured(f"pipeline.cpus.sampling={cpu}"))
    assert config.pipeline.cpus.sampling == (cpu,)
    assert config.pipeline.cpus.inference is None
    spins = config.pipeline.spin_us
    assert spins.inference == spin_us("inference", config, usable_cpus())
    assert None not in (spins.preprocess, spins.inference, spins.sampling)


def test_affinity_counts():
    script = (
        "import os; from pipeline.host.cpu_placement import usable_cpus; "
        "os.sched_setaffinity(0, {%d}); print(usable_cpus())"
    )
    cpu = min(os.sched_getaffinity(0))
    done = subprocess.run([sys.executable, "-c", script % cpu], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 1


def test_cpus_that_are_not_there_are_refused():
    with pytest.raises(ConfigurationError, match=r"pipeline\.cpus\.sampling names CPUs .*\[4095\]"):
        load_configuration(ROOT / "configs/emulated_910b.yaml", ["pipeline.cpus.sampling=[0, 4095]"])
    with pytest.raises(ConfigurationError, match="or device"):
        configured("pipeline.cpus.sampling=npu")


# ---- near the device ----------------------------------------------------------------------------------------------


def test_inference_is_pinned_next_to_its_device(tmp_path, monkeypatch):
    """All but the lookup: npu-smi is a program of ours, and the CPUs are this machine's."""
    cpu = min(os.sched_getaffinity(0))
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("pipeline.host.cpu_placement.device_cpus", lambda device: (cpu, 4000 + device))
    overrides = (
        "pipeline.runner.device=Ascend",
        "pipeline.cpus.inference=device",
        "serving_config.start_device_id=3",
    )
    config = configured(*overrides, name="demo")
    assert config.pipeline.cpus.inference == "device"
    assert fit_to_host(config).pipeline.cpus.inference == (cpu,)
    monkeypatch.setattr("pipeline.host.cpu_placement.device_cpus", lambda _: (4000,))
    with pytest.raises(HostError, match=r"pipeline\.cpus\.inference is device, but this process may use none"):
        fit_to_host(config)


def test_where_the_device_is_not_known_the_start_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    config = configured("pipeline.runner.device=Ascend", "pipeline.cpus.inference=device", name="demo")
    with pytest.raises(HostError, match=r"pipeline\.cpus\.inference is device, but npu-smi info can't be run"):
        fit_to_host(config)


@pytest.mark.parametrize("name", ["demo", "emulated_910b"])
def test_without_a_device_there_is_nothing_to_be_near(name):
    with pytest.raises(
        ConfigurationError, match=r"pipeline\.cpus\.sampling is device, but no Ascend device computes"
    ):
        configured("pipeline.cpus.sampling=device", name=name)


# ---- several replicas ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpus", "inference", "others"),
    [(2, ASLEEP, ASLEEP), (7, ASLEEP, ASLEEP), (8, AWAKE, ASLEEP), (13, AWAKE, AWAKE)],
)
def test_four_replicas_spin_only_where_there_are_cpus_for_all_of_them(cpus, inference, others):
    """A front, and three processes each."""
    config = configured("pipeline.replicas=4")
    assert spin_us("inference", config, cpus) == inference
    assert {spin_us(stage, config, cpus) for stage in ("preprocess", "sampling")} == {others}


def test_each_replica_is_pinned_next_to_its_own_device(monkeypatch):
    near = {3: 0, 4: 1}
    monkeypatch.setattr("pipeline.host.cpu_placement.device_cpus", lambda device: (near[device],))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    config = configured(
        "pipeline.runner.device=Ascend",
        "pipeline.cpus={inference: device, sampling: device, front: device, preprocess: [0]}",
        "serving_config.start_device_id=3",
        "pipeline.replicas=2",
        name="demo",
    )
    first, second = (fit_to_host(config, replica).pipeline.cpus for replica in (0, 1))
    assert (first.inference, first.sampling, first.front, first.preprocess) == ((0,), (0,), (0,), (0,))
    assert (second.inference, second.sampling, second.preprocess) == ((1,), (1,), (0,))
    assert fit_as(config, fit_to_host(config, 1)).pipeline.cpus == second
