"""How ranks find each other for MindSpore's own collectives; `make test-mccl` lets them do it."""

from __future__ import annotations

import json

import pytest

from model.errors import ConfigurationError
from model.mindspore_common.cluster import require_rank_table, worker_environment
from model.mindspore_common.ranks import Ranks


def test_what_a_worker_is_told():
    assert worker_environment(Ranks(1, 4), 8118) == {
        "MS_ROLE": "MS_WORKER",
        "MS_NODE_ID": "1",
        "MS_WORKER_NUM": "4",
        "MS_SCHED_HOST": "127.0.0.1",
        "MS_SCHED_PORT": "8118",
    }


@pytest.fixture
def table(tmp_path):
    """A rank table, as hccl_tools writes it, of devices 4 and 5."""
    file = tmp_path / "hccl.json"

    def write(devices=(4, 5)):
        listed = [
            {"device_id": str(device), "device_ip": f"192.168.100.{device}", "rank_id": str(rank)}
            for rank, device in enumerate(devices)
        ]
        servers = [{"server_id": "10.0.0.7", "device": listed, "host_nic_ip": "reserve"}]
        file.write_text(json.dumps({"version": "1.0", "server_count": "1", "server_list": servers}))
        return file

    return write


def test_a_rank_table_of_the_replicas_devices(table):
    for rank in range(2):
        require_rank_table(table(), Ranks(rank, 2), 4 + rank)


def test_a_rank_table_that_does_not_fit(table):
    with pytest.raises(ConfigurationError, match=r"lists 2 devices, but there are 4 ranks .* or unset it"):
        require_rank_table(table(), Ranks(0, 4), 4)
    with pytest.raises(ConfigurationError, match=r"rank 1 has device 5, but it is 1 here .*start_device_id"):
        require_rank_table(table(), Ranks(1, 2), 1)


@pytest.mark.parametrize("content", ["", "[]", '{"server_list": [{"device": [{"rank_id": "0"}]}]}'])
def test_a_file_that_is_no_rank_table(table, content):
    file = table()
    file.write_text(content)
    with pytest.raises(ConfigurationError, match="which is no rank table: "):
        require_rank_table(file, Ranks(0, 2), 4)
    with pytest.raises(ConfigurationError, match="which is no rank table: FileNotFoundError"):
        require_rank_table(file.with_name("none"), Ranks(0, 2), 4)
