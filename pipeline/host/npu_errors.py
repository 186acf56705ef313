"""Error codes of Ascend's runtime, HCCL and drivers in plain words: what happened, and what to do.

From Huawei's documents (troubleshooting of CANN 8.5 to 9.0, and the runtime's public header of error codes).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_HARDWARE = "see npu-smi info and dmesg; reset the device (npu-smi set -t reset), replace it if it comes again"
_OPERATOR = "an operator failed on the device: the newest file in ~/ascend/log/debug/plog names it"
_TIMEOUT = "the device did not finish an operator in time: is it healthy (npu-smi info), is another process on it"
_MEMORY = (
    "lower pa_config.num_blocks or pipeline.memory_fraction; end processes that npu-smi info shows on the device"
)
_STREAMS = (
    "too many compiled graphs, or other processes on the device: fewer buckets (pipeline.max_rows, "
    "pipeline.token_budget); end what npu-smi info shows there. It is not the disk, whatever the text around it says"
)
_NETWORK = "check links between devices: hccn_tool -i DEVICE -link -g, -net_health -g, -tls -g (the same everywhere)"

RUNTIME: Final[Mapping[int, tuple[str, str]]] = MappingProxyType(
    {
        107001: ("there is no device with this number", "serving_config.start_device_id, ASCEND_RT_VISIBLE_DEVICES"),
        107002: ("the calling thread has no device context", "please report it as a bug of RingServe"),
        107019: ("waiting for the device took too long", _TIMEOUT),
        107020: ("a task on the device took too long", _TIMEOUT),
        107022: ("the device gave up its tasks: another process or an operator reset it", _HARDWARE),
        207000: ("driver or firmware can't do what CANN asks for", "update driver and firmware to CANN's pair"),
        207001: ("no memory is left on the device", _MEMORY),
        207003: ("an operator's result overflowed", "compute in bfloat16, or in float32 on CPU"),
        207004: ("no device is there", "npu-smi info; in a container: --device=/dev/davinci0 and its companions"),
        207005: ("the device has no stream, event or notification left", _STREAMS),
        207006: ("no permission for the device", "run as a member of HwHiAiUser"),
        207007: ("the device has no event left", _STREAMS),
        207008: ("the device has no stream left", _STREAMS),
        207009: ("the device has no notification left", _STREAMS),
        207010: ("the device can't hold more graphs", _STREAMS),
        207018: ("no memory is left on the device", _MEMORY),
        507000: ("an internal error of CANN's runtime", "~/ascend/log/debug/plog has the first error"),
        507008: ("CANN was built for another chip", "install the operator package (kernels, ops) of this chip"),
        507010: ("the device's scheduler does not answer any more", _HARDWARE),
        507011: ("a graph failed on the device", _OPERATOR),
        507013: ("copying between devices, or from the host, failed", _HARDWARE),
        507014: ("an AI core took too long", _TIMEOUT),
        507015: ("an AI core stopped at an error, often an address outside of a tensor", _OPERATOR),
        507016: ("an AI core stopped at an error", _OPERATOR),
        507017: ("the device's own CPU took too long", _TIMEOUT),
        507018: ("an operator on the device's own CPU failed", _OPERATOR),
        507033: ("the device could not be set up", "is another process on it (npu-smi info); else " + _HARDWARE),
        507034: ("a vector core took too long", _TIMEOUT),
        507035: ("a vector core stopped at an error, often an address outside of a tensor", _OPERATOR),
        507053: ("the device's memory has an error that could not be corrected", _HARDWARE),
        507054: ("the device's memory has several wrong bits", _HARDWARE),
        507056: ("a link between devices failed", _NETWORK),
        507899: ("the driver failed", "dmesg; do driver, firmware and CANN belong together"),
        507900: ("the device's own CPU failed", _HARDWARE),
        507901: ("the driver lost its connection to the device", "npu-smi info; was the device reset"),
    }
)  # fmt: skip
"""Of ACL: what happened, and what to do."""

MODULES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "EE1002": ("waiting for the device took too long", _TIMEOUT),
        "EL0004": ("no memory is left", _MEMORY),
        "EI0001": ("an HCCL_ variable has a value that is not allowed", "the text names it and its range"),
        "EI0002": (
            "one device waited for another in a collective operation until HCCL_EXEC_TIMEOUT was over",
            "find the device that stopped first: the earliest error among all ranks' plogs is the cause",
        ),
        "EI0003": ("a collective operation was called with wrong arguments", "please report it as a bug"),
        "EI0004": ("the rank table is wrong", "correct the file that RANK_TABLE_FILE names"),
        "EI0005": ("ranks called an operation with different arguments", "run one configuration everywhere"),
        "EI0006": (
            "the devices did not find one another within HCCL_CONNECT_TIMEOUT",
            "one rank failed or started later: look at its log first; " + _NETWORK,
        ),
        "EI0007": ("HCCL could not get memory, streams or notifications", _MEMORY),
        "EI0008": ("ranks have different versions of CANN", "install the same one everywhere"),
        "EI0009": ("a connection between devices could not be set up", _NETWORK),
        "EI0010": ("devices of this host can't reach each other's memory", "npu-smi info -t topo; " + _HARDWARE),
        "EI0011": ("no device memory is left for HCCL", "lower HCCL_BUFFSIZE, or: " + _MEMORY),
        "EI0012": ("copying between devices failed", _HARDWARE),
        "EI0013": ("the network between devices lost data", _NETWORK),
        "EI0014": ("the rank table is wrong", "correct the file that RANK_TABLE_FILE names"),
        "EI0019": ("HCCL's port is in use", "is an earlier server still there; HCCL_IF_BASE_PORT"),
    }
)  # fmt: skip
"""Of CANN's parts: two letters and a number."""

_INNER = ("an internal error of CANN", "the lines after it, and the newest file in ~/ascend/log/debug/plog, say more")
_MODULE_CODE = re.compile(r"\bE[A-Z0-9]\d{4}\b")
_RUNTIME_CODE = re.compile(
    r"(?:err\w*|code|ret\w*|result|status)[\s:=\[(]{0,3}(?:is |was |no[. ]*)?[\s:=\[(]{0,3}([1-5]07\d{3})\b", re.I
)


def explain(text: str) -> list[str]:
    """A line for every code in it that is known, each once, in the order of the text; inner errors only if there is
    nothing better to say."""
    found = [(match.start(), match[0]) for match in _MODULE_CODE.finditer(text)]
    found += [(match.start(1), match[1]) for match in _RUNTIME_CODE.finditer(text)]
    codes = list(dict.fromkeys(code for _, code in sorted(found)))
    known = [f"{code}: {what}; {remedy}" for code in codes for what, remedy in _known(code)]
    inner = [f"{code}: {_INNER[0]}; {_INNER[1]}" for code in codes if code.endswith("9999")]
    return known or inner[:1]


def _known(code: str) -> list[tuple[str, str]]:
    found = RUNTIME.get(int(code)) if code.isdigit() else MODULES.get(code)
    return [] if found is None else [found]
