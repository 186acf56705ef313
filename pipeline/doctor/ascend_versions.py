"""Whether driver, firmware, CANN and MindSpore of an Ascend host belong together.

Not run on a device so far. Pairs are those of MindSpore Transformers' and CANN's documents; the driver may be newer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Final

from pipeline.doctor.finding import Finding, ok, warn
from pipeline.doctor.subject import Host, Plan

TOPIC = "ascend"
_UNTRIED = "(not run on a device so far)"

DRIVERS: Final[Mapping[str, str]] = MappingProxyType(
    {"8.0": "24.1", "8.1": "25.0", "8.2": "25.0", "8.3": "25.3", "8.5": "25.0", "9.0": "26.0"}
)
"""The oldest documented driver (Ascend HDK) by CANN's version."""

CANN: Final[Mapping[str, str]] = MappingProxyType({"2.9": "9.0"})
"""By MindSpore's version, which the project pins."""

_MAPPING = "https://www.mindspore.cn/mindformers/docs/en/r1.9.0/installation.html"


def check_versions(host: Host, plan: Plan) -> Iterator[Finding]:
    if not plan.on_ascend:
        return
    driver = _value(host.text("usr/local/Ascend/driver/version.info"), "Version")
    cann = cann_version(host, os.environ.get("ASCEND_HOME_PATH", "/usr/local/Ascend/ascend-toolkit/latest"))
    yield _check_driver(driver, cann)
    yield _check_mindspore(cann)
    yield from _check_firmware(host)


def cann_version(host: Host, home: str) -> str:
    """Such as 8.3.RC1; "" where it can't be found."""
    infos = host.names(home.lstrip("/"), "*-linux/ascend_toolkit_install.info")
    texts = (host.text(str(info.relative_to(host.root))) for info in infos)
    return next((found for text in texts if (found := _value(text, "version"))), "")


def _check_driver(driver: str, cann: str) -> Finding:
    pair = f"driver {driver or 'not known'} with CANN {cann or 'not known'}"
    oldest = DRIVERS.get(_short(cann))
    if oldest is None or not driver:
        known = ", ".join(f"{one} with {other} or newer" for one, other in DRIVERS.items())
        return warn(
            TOPIC, f"{pair}: nothing is known of this pair {_UNTRIED}", f"known pairs: CANN {known}; {_MAPPING}"
        )
    text = (
        f"{pair}, wanted: {oldest} or newer (CANN asks the driver for what older ones do not have: 207000) {_UNTRIED}"
    )
    good = _number(driver) >= _number(oldest)
    return ok(TOPIC, text) if good else warn(TOPIC, text, f"install driver and firmware {oldest}; {_MAPPING}")


def _check_mindspore(cann: str) -> Finding:
    try:
        ours = version("mindspore")
    except PackageNotFoundError:
        return warn(TOPIC, f"mindspore is not installed {_UNTRIED}", "pip install ringserve")
    wanted = CANN.get(_short(ours), "")
    both = f"CANN {cann or 'not known'} with MindSpore {ours}, wanted: {wanted or 'not known'}"
    text = f"{both} (operators are matched by version) {_UNTRIED}"
    good = bool(wanted) and _short(cann) == wanted
    return ok(TOPIC, text) if good else warn(TOPIC, text, _MAPPING)


def _check_firmware(host: Host) -> Iterator[Finding]:
    """The driver's file says which versions of the firmware it works with."""
    firmware = _value(host.text("usr/local/Ascend/firmware/version.info"), "Version")
    bounds = re.findall(
        r"\d+(?:\.\d+)+", _value(host.text("usr/local/Ascend/driver/version.info"), "compatible_version_fw")
    )
    if not firmware or len(bounds) != 2:
        text = f"firmware {firmware or 'not known'}: what the driver works with is not known {_UNTRIED}"
        yield ok(TOPIC, f"{text}; in a container that is usual: the host has the file")
        return
    text = f"firmware {firmware}, wanted: {bounds[0]} to {bounds[1]} (by the driver's own file) {_UNTRIED}"
    good = _number(bounds[0]) <= _number(firmware) and _number(firmware)[:3] <= _number(bounds[1])
    yield ok(TOPIC, text) if good else warn(TOPIC, text, "install the firmware of the driver's package, then reboot")


def _value(text: str, key: str) -> str:
    found = re.search(rf"^{key}=(.*)$", text, re.M)
    return found[1].strip() if found else ""


def _short(text: str) -> str:
    """Major and minor."""
    return ".".join(map(str, _number(text)[:2]))


def _number(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: 25.0.rc1.1 is (25, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()
