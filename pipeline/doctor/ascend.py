"""Ascend's driver and runtime, where the configuration asks for a device.

Not run on a device so far: paths and formats are those of Huawei's documents.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from model.errors import ConfigurationError
from model.mindspore_common.cluster import RANK_TABLE, require_rank_table
from model.mindspore_common.ranks import Ranks
from pipeline.doctor.finding import Finding, fail, ok, warn
from pipeline.doctor.subject import Host, Plan
from pipeline.host.facts import HostError
from pipeline.host.npu import devices_in, npu_table, physical_device
from pipeline.wire.topology import device_of

TOPIC = "ascend"
_SHARED = ("davinci_manager", "devmm_svm", "hisi_hdc")
_UNTRIED = "(this check has not run on a device so far)"


def check_ascend(host: Host, plan: Plan) -> Iterator[Finding]:
    if not plan.on_ascend:
        yield ok(TOPIC, "the configuration needs no Ascend device")
        return
    pipeline = plan.config.pipeline
    places = [(replica, rank) for replica in range(pipeline.replicas) for rank in range(pipeline.ranks)]
    try:
        devices = [physical_device(device_of(plan.config, *place)) for place in places]
    except HostError as error:
        fix = "correct serving_config.start_device_id, pipeline.replicas, .ranks or ASCEND_RT_VISIBLE_DEVICES"
        yield fail(TOPIC, f"{error} {_UNTRIED}", fix)
        return
    for device in devices:
        yield from _check_nodes(host, device)
    yield from _check_runtime(host)
    for device in devices:
        yield from _check_device(device)
    if pipeline.ranks > 1:
        yield from _check_rank_table(plan, places)


def _check_rank_table(plan: Plan, places: Sequence[tuple[int, int]]) -> Iterator[Finding]:
    """Where one is set. Ranks find each other without."""
    table = os.environ.get(RANK_TABLE)
    if not table:
        return
    try:
        for replica, rank in places:
            ranks = Ranks(rank, plan.config.pipeline.ranks)
            require_rank_table(Path(table), ranks, device_of(plan.config, replica, rank))
    except ConfigurationError as error:
        yield fail(TOPIC, f"{error} {_UNTRIED}", f"unset {RANK_TABLE}")
        return
    yield ok(TOPIC, f"{RANK_TABLE} lists the devices of the replica's ranks {_UNTRIED}")


def _check_nodes(host: Host, device: int) -> Iterator[Finding]:
    nodes = [host.root / "dev" / name for name in (f"davinci{device}", *_SHARED)]
    missing = [str(node) for node in nodes if not node.exists()]
    closed = [str(node) for node in nodes if node.exists() and not os.access(node, os.R_OK | os.W_OK)]
    if missing:
        fix = "install the driver; in a container: " + " ".join(f"--device={node}" for node in missing)
        yield fail(TOPIC, f"missing device nodes: {', '.join(missing)} {_UNTRIED}", fix)
    if closed:
        fix = "run as a member of the driver's group (HwHiAiUser): SupplementaryGroups=HwHiAiUser in the unit"
        yield fail(TOPIC, f"no permission to open {', '.join(closed)} {_UNTRIED}", fix)
    if not missing and not closed:
        yield ok(TOPIC, f"the driver's nodes for device {device} can be opened {_UNTRIED}")


def _check_runtime(host: Host) -> Iterator[Finding]:
    """CANN, which MindSpore loads when it uses a device."""
    version = host.text("usr/local/Ascend/driver/version.info").partition("\n")[0]
    if version:
        yield ok(TOPIC, f"driver: {version} {_UNTRIED}")
    else:
        text = f"/usr/local/Ascend/driver/version.info can't be read {_UNTRIED}"
        yield warn(TOPIC, text, "in a container: -v /usr/local/Ascend/driver:/usr/local/Ascend/driver:ro")
    home = os.environ.get("ASCEND_HOME_PATH") or os.environ.get("ASCEND_TOOLKIT_HOME")
    libraries = [Path(part) / "libascendcl.so" for part in os.environ.get("LD_LIBRARY_PATH", "").split(":") if part]
    if home and any(library.exists() for library in libraries):
        yield ok(TOPIC, f"CANN: {home} {_UNTRIED}")
    else:
        text = f"CANN's environment is not set: libascendcl.so is not on LD_LIBRARY_PATH {_UNTRIED}"
        fix = "source /usr/local/Ascend/ascend-toolkit/set_env.sh; in a unit: EnvironmentFile= with what it sets"
        yield fail(TOPIC, text, fix)


def _check_device(device: int) -> Iterator[Finding]:
    try:
        devices = devices_in(npu_table())
    except HostError as error:
        fix = "in a container: -v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi:ro"
        yield warn(TOPIC, f"{error} {_UNTRIED}", fix)
        return
    health, bus = devices.get(device, ("", ""))
    if health == "OK":
        yield ok(TOPIC, f"device {device} at {bus}: health OK {_UNTRIED}")
    elif health:
        yield fail(TOPIC, f"device {device} at {bus}: health {health} {_UNTRIED}", "npu-smi info -t health")
    else:
        known = ", ".join(map(str, devices)) or "none"
        text = f"npu-smi shows no device {device}; it shows {known} {_UNTRIED}"
        yield fail(TOPIC, text, "correct serving_config.start_device_id, or lower pipeline.replicas")
