"""The openvino runner as its caller sees it; steps, errors and results are in tests/model/test_conformance.py."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.errors import CapacityError, CheckpointError, ConfigurationError
from model.families import read_spec
from model.openvino import OpenVinoRunner, requirements
from model.openvino.memory import kv_block_bytes
from model.runner import Bucket
from tests.model.adapters.folders import Lora
from tests.model.conftest import needs_openvino
from tests.model.families.checkpoints import load
from tests.model.openvino import scenarios

CHECKPOINTS = load()


@pytest.fixture
def gemma3(tmp_path):
    return CHECKPOINTS["gemma3"].save(tmp_path)


@needs_openvino
def test_facts_and_memory_are_known_without_openvino(gemma3):
    runner = OpenVinoRunner(scenarios.settings(gemma3))
    facts, need = runner.facts, runner.memory_need()
    assert (facts.name, facts.device) == ("openvino gemma3_text 64 x 2", "CPU")
    assert (facts.vocab_size, facts.max_length, facts.block_table_width) == (256, 64, 2)
    assert need.kv_cache == 9 * 2 * 2 * 2 * 32 * 32 * 4
    assert need.weights == 2 * 4 * sum(int(np.prod(shape)) for shape in runner.spec.tensors().values())
    assert "openvino" not in sys.modules


@needs_openvino
def test_a_bucket_takes_no_time_before_its_first_step(in_openvino, gemma3):
    """So the server is ready when all are; some alone can be run, too."""
    assert not OpenVinoRunner(scenarios.settings(gemma3)).compiles
    buckets = (Bucket(2, 2), Bucket(20, 2))
    assert in_openvino(scenarios.warm_up, gemma3, buckets) == [("warming up", 1, 1)]
    assert in_openvino(scenarios.warm_up, gemma3, buckets[1:]) == [("warming up", 1, 1)]
    assert in_openvino(scenarios.warm_up, gemma3, None)[-1] == ("warming up", 4, 4)


@needs_openvino
@pytest.mark.parametrize(
    ("weight_dtype", "kv_dtype", "vectors"),
    [(None, None, 2 * 32 * 4), ("int8", "f16", 2 * 32 * 2), (None, "u8", 40 + 40)],
)
def test_caches_are_what_is_counted(in_openvino, gemma3, weight_dtype, kv_dtype, vectors):
    changes = {"weight_dtype": weight_dtype, "kv_dtype": kv_dtype}
    counted = kv_block_bytes(read_spec(CHECKPOINTS["gemma3"].config), scenarios.settings(gemma3, **changes))
    assert counted == 2 * 2 * 32 * vectors
    allocated = in_openvino(scenarios.caches, gemma3, **changes)
    assert sum(allocated) == 9 * counted


@needs_openvino
@pytest.mark.parametrize(
    ("name", "changes", "error", "message"),
    [
        ("gemma3", {"num_blocks": 10**8}, CapacityError, "KV cache .* for 100000000 blocks of 32 tokens"),
        ("gemma3", {"max_length": 257}, ConfigurationError, "max_length is 257, but the model knows 256 positions"),
        ("gemma3", {"device": "Ascend"}, ConfigurationError, "the openvino engine computes on CPU only"),
        ("gemma3", {"block_size": 16}, ConfigurationError, "block_size is 16; the openvino engine knows 32 only"),
        ("gemma3", {"weight_dtype": "int4"}, ConfigurationError, "'int4'; it must be one of f32, bf16, int8"),
        ("gemma3", {"kv_dtype": "bf16"}, ConfigurationError, "weight_dtype left out it must be one of f32, f16, u8"),
        (
            "gemma3",
            {"adapters": (Path("a"),)},
            ConfigurationError,
            "adapters: the openvino engine has none.*kind: mindspore.*merged_adapter",
        ),
        ("gemma2", {}, ConfigurationError, "'gemma2' has a softcap of attention's scores, which .*kind: mindspore"),
        ("mixtral", {}, ConfigurationError, "'mixtral' has a mixture of experts, which the openvino engine can't"),
    ],
)
def test_refused(tmp_path, name, changes, error, message):
    folder = CHECKPOINTS[name].save(tmp_path)
    with pytest.raises(error, match=message):
        OpenVinoRunner(scenarios.settings(folder, **changes))


@needs_openvino
def test_an_adapter_that_does_not_fit_is_refused_before_openvino_is_loaded(gemma3):
    folder = Lora(CHECKPOINTS["qwen2"]).save(gemma3 / "adapter")
    with pytest.raises(CheckpointError, match=f"adapter {folder} does not fit the model: .* wrongly shaped"):
        OpenVinoRunner(scenarios.settings(gemma3, merged_adapter=folder))
    assert "openvino" not in sys.modules


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "missing"),
    [
        ("x86_64", "flags\t\t: fpu avx avx2 fma\n", None),
        ("x86_64", "flags\t\t: fpu avx fma\nbugs\t: avx2\n", "AVX2"),
        ("aarch64", "Features\t: fp asimd sve\n", None),
        ("aarch64", "Features\t: fp asimd\n", "SVE"),
        ("riscv64", "isa\t: rv64\n", "x86-64"),
    ],
)
def test_processors(tmp_path, monkeypatch, machine, cpuinfo, missing):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert requirements.missing_flag(tmp_path) == missing
    assert not requirements.computes_bfloat16(tmp_path)


@pytest.mark.parametrize(
    ("version", "wrong"),
    [("2026.4.1", False), ("2026.4.0", False), ("2026.5.0", True), ("2026.3.2", True), ("2027.0.0", True)],
)
def test_other_releases_are_refused(monkeypatch, version, wrong):
    monkeypatch.setattr(requirements.metadata, "version", lambda name: version)
    assert bool(requirements.missing_package()) is wrong


def test_what_is_missing_is_said_with_what_would_work(gemma3, monkeypatch):
    monkeypatch.setattr(requirements, "missing_flag", lambda: "AVX2")
    with pytest.raises(ConfigurationError, match=r"needs AVX2, which this processor lacks; use .*kind: mindspore"):
        OpenVinoRunner(scenarios.settings(gemma3))
    monkeypatch.setattr(requirements, "missing_flag", lambda: None)
    monkeypatch.setattr(requirements, "missing_package", lambda: "openvino is not installed")
    with pytest.raises(
        ConfigurationError, match=r"not installed; pip install 'ringserve\[openvino\]', or use .*mind"
    ):
        OpenVinoRunner(scenarios.settings(gemma3))
    monkeypatch.setattr(requirements, "missing_package", lambda: None)
    monkeypatch.setattr(requirements, "computes_bfloat16", lambda: False)
    with pytest.raises(ConfigurationError, match=r"has no arithmetic in bfloat16 .*; use f32 or int8"):
        OpenVinoRunner(scenarios.settings(gemma3, weight_dtype="bf16"))


def test_every_step_has_a_bucket_and_most_have_their_own(tmp_path):
    plain = replace(scenarios.settings(tmp_path), buckets=None)
    buckets = replace(plain, max_rows=5, token_budget=64).effective_buckets()
    assert buckets == (*(Bucket(rows, rows) for rows in range(1, 6)), *(Bucket(64, rows) for rows in (1, 2, 4, 5)))
    many = replace(plain, max_rows=300, token_budget=300).effective_buckets()
    assert many[63:] == (
        Bucket(64, 64),
        Bucket(128, 128),
        Bucket(256, 256),
        *(Bucket(300, 2**i) for i in range(9)),
        Bucket(300, 300),
    )


@needs_openvino
def test_the_operation_is_the_one_that_is_known(in_openvino):
    """Another release may have other inputs: then `model.openvino.paged_attention` has to follow."""
    assert "expects 28 inputs, but it has 0" in in_openvino(scenarios.operation)


@needs_openvino
def test_steps_of_padding_alone_write_to_no_block(in_openvino, gemma3):
    in_openvino(scenarios.warmed_up, gemma3)


@needs_openvino
def test_nothing_is_reported_to_anybody_and_nothing_is_said(tmp_path, gemma3):
    """OpenVINO's package reports its import over the network, and leaves files for that in the home directory."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from tests.model.openvino.scenarios import loaded
runner = loaded({str(gemma3)!r}, checkpoint_path=None)
runner.warm_up()
assert "openvino" in sys.modules and "mindspore" not in sys.modules
assert not any("telemetry" in name for name in sys.modules)
print("done")
"""
    home = tmp_path / "home"
    home.mkdir()
    command, environment = [sys.executable, "-c", code], {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=home, env=environment, timeout=120, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")
    assert list(home.iterdir()) == []
