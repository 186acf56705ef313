"""The memory check: what is needed, what there is, and what the error says."""

from dataclasses import replace

import pytest

from model.errors import CapacityError, ConfigurationError
from model.families import read_spec_file
from model.mindformers_runner import MindFormersRunner
from model.mindspore_common.memory import available_memory, kv_block_bytes, memory_need, require_memory
from tests.model import scenarios
from tests.model.conftest import DATA

GIB = 1 << 30
SPEC = read_spec_file(DATA / "grouped")
SETTINGS = scenarios.settings(DATA / "grouped")


def test_need_counts_weights_and_cache():
    # 2 layers x 2 heads x 16 tokens x (16 + 16) x 4 bytes
    assert kv_block_bytes(SPEC, SETTINGS) == 8192
    need = memory_need(SPEC, SETTINGS)
    assert need.kv_cache == 40 * 8192
    assert need.weights == 4 * sum(_size(shape) for shape in SPEC.tensors().values())


def test_half_precision_without_padding_on_ascend():
    narrow = replace(SPEC, num_heads=8, num_kv_heads=4, head_dim=8)  # heads of 8, padded to 16 on CPU
    assert kv_block_bytes(narrow, SETTINGS) == 2 * 4 * 16 * (8 + 16) * 4
    assert kv_block_bytes(narrow, replace(SETTINGS, device="Ascend")) == 2 * 4 * 16 * 16 * 2


def test_error_says_what_to_change():
    need = memory_need(SPEC, SETTINGS)
    require_memory(need, kv_block_bytes(SPEC, SETTINGS), SETTINGS, need.total)
    with pytest.raises(CapacityError, match="lower num_blocks from 40 to at most 39, or give the process more"):
        require_memory(need, kv_block_bytes(SPEC, SETTINGS), SETTINGS, need.total - 1)
    with pytest.raises(CapacityError, match="use a smaller model, or give the process more memory"):
        require_memory(need, kv_block_bytes(SPEC, SETTINGS), SETTINGS, 1000)


def test_runner_refuses_before_it_allocates():
    with pytest.raises(CapacityError, match=r"KV cache 76\.29 GiB for 10000000 blocks of 16 tokens"):
        MindFormersRunner(scenarios.settings(DATA / "grouped", num_blocks=10_000_000))


def test_length_beyond_the_model():
    with pytest.raises(ConfigurationError, match="max_length is 257, but the model knows 256 positions"):
        MindFormersRunner(scenarios.settings(DATA / "grouped", max_length=257))


def machine(root, *, available=8 * GIB, cgroup="0::/a/b\n", **files):
    """A made-up /proc and /sys."""
    contents = {
        "proc/meminfo": f"MemTotal: 99 kB\nMemAvailable: {available // 1024} kB\n",
        "proc/self/cgroup": cgroup,
    }
    for name, text in {**contents, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(text))
    return available_memory(root)


def test_machine_alone(tmp_path):
    assert machine(tmp_path, cgroup="") == 8 * GIB


def test_limit_of_a_control_group_above(tmp_path):
    group = "sys/fs/cgroup/a"
    files = {f"{group}/b/memory.max": "max", f"{group}/b/memory.current": 1}
    files |= {f"{group}/memory.max": 3 * GIB, f"{group}/memory.current": 2 * GIB}
    assert machine(tmp_path, **files) == GIB


def test_page_cache_counts_as_room(tmp_path):
    group = "sys/fs/cgroup/a/b"
    files = {f"{group}/memory.max": 3 * GIB, f"{group}/memory.current": 2 * GIB}
    stat = f"anon 5\ninactive_file {GIB // 2}\nactive_file {GIB // 4}\n"
    assert machine(tmp_path, **files, **{f"{group}/memory.stat": stat}) == GIB + GIB * 3 // 4


def test_control_groups_version_1(tmp_path):
    group = "sys/fs/cgroup/memory/x"
    files = {f"{group}/memory.limit_in_bytes": 5 * GIB, f"{group}/memory.usage_in_bytes": GIB}
    assert machine(tmp_path, cgroup="4:memory:/x\n3:cpu,cpuacct:/x\n", **files) == 4 * GIB


def test_this_machine_has_some():
    assert available_memory() > 0


def _size(shape: tuple[int, ...]) -> int:
    return shape[0] * (shape[1] if len(shape) > 1 else 1)
