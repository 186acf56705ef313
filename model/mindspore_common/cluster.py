"""MindSpore's own collectives: HCCL on Ascend; on CPU its MCCL, which is there to be compared with.

Ranks find each other through MindSpore's scheduler, a process that the first rank starts for them, on a port of the
loopback interface that it tells the others; or as ``RANK_TABLE_FILE`` says, on Ascend. HCCL's part was never run on a
device so far.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import ConfigurationError
from model.mindspore_common.ranks import Gather, Ranks

RANK_TABLE = "RANK_TABLE_FILE"
_HOST = "127.0.0.1"
_SCHEDULER = """
import ctypes, signal
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it dies with the rank that has started it
import mindspore
from mindspore.communication import init
mindspore.set_device("CPU")
init()
"""


def join_cluster(ranks: Ranks, device_id: int) -> None:
    """Before anything is made of MindSpore, and on the device that it computes on; all ranks at once, which have
    joined each other in shared memory. Raises ConfigurationError, and what MindSpore raises."""
    from mindspore.communication import init

    table = os.environ.get(RANK_TABLE)
    if table:
        require_rank_table(Path(table), ranks, device_id)
        os.environ.update(RANK_ID=str(ranks.rank), RANK_SIZE=str(ranks.count))
    else:
        os.environ.update(worker_environment(ranks, _meet(ranks)))
    init()


def worker_environment(ranks: Ranks, port: int) -> dict[str, str]:
    """What MindSpore wants to know of a process that is this rank, and where its scheduler is."""
    return _environment(ranks, port) | {"MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(ranks.rank)}


def require_rank_table(path: Path, ranks: Ranks, device_id: int) -> None:
    """That it lists this replica's devices and no others: MindSpore would wait for all that it lists. Raises
    ConfigurationError."""
    try:
        servers = json.loads(path.read_text())["server_list"]
        devices = {int(one["rank_id"]): int(one["device_id"]) for server in servers for one in server["device"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{RANK_TABLE} names {path}, which is no rank table: {error!r}") from error
    remedy = "correct it, or unset it: ranks on one machine find each other without"
    if len(devices) != ranks.count:
        raise ConfigurationError(
            f"{RANK_TABLE} names {path}, which lists {len(devices)} devices, but there are {ranks.count} ranks "
            f"(pipeline.ranks) to a replica; {remedy}"
        )
    renamed = "ASCEND_RT_VISIBLE_DEVICES" in os.environ  # then the table has other numbers
    if not renamed and devices.get(ranks.rank) != device_id:
        raise ConfigurationError(
            f"{RANK_TABLE} names {path}, where rank {ranks.rank} has device {devices.get(ranks.rank)}, but it is "
            f"{device_id} here (serving_config.start_device_id and the rank); {remedy}"
        )


def _meet(ranks: Ranks) -> int:
    """The scheduler's port, which the first rank has chosen."""
    own, every = np.zeros(1, np.int32), np.zeros((ranks.count, 1), np.int32)
    if ranks.rank == 0:
        own[0] = _free_port()
        _start_scheduler(ranks, int(own[0]), os.environ)
    Gather(ranks.count)(own, every)
    return int(every[0, 0])


def _start_scheduler(ranks: Ranks, port: int, environment: Mapping[str, str]) -> None:
    """It ends with this process."""
    changed: MutableMapping[str, str] = {**environment, **_environment(ranks, port), "MS_ROLE": "MS_SCHED"}
    changed["GLOG_v"] = "3"
    subprocess.Popen([sys.executable, "-P", "-c", _SCHEDULER], env=changed, stdin=subprocess.DEVNULL)


def _environment(ranks: Ranks, port: int) -> dict[str, str]:
    return {"MS_WORKER_NUM": str(ranks.count), "MS_SCHED_HOST": _HOST, "MS_SCHED_PORT": str(port)}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        address: tuple[Any, int] = listener.getsockname()
        return address[1]
