"""Builds the C extensions; everything else is declared in pyproject.toml."""

import os
from pathlib import Path

from setuptools import Extension, setup

CFLAGS = ["-std=c11", "-O3", "-Wall", "-Wextra", "-fvisibility=hidden"]
if os.environ.get("RINGSERVE_WERROR"):  # set by the tests; a newer compiler's new warning must not stop a user
    CFLAGS.append("-Werror")

setup(
    ext_modules=[
        Extension(
            "ipc._core",
            sources=sorted(map(str, Path("ipc/core").glob("*.c"))),
            depends=sorted(map(str, Path("ipc/core").glob("*.h"))),
            extra_compile_args=CFLAGS,
            py_limited_api=True,
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
        ),
        Extension(
            "model.sampling._kernels",
            sources=sorted(map(str, Path("model/sampling").glob("*.c"))),
            depends=sorted(map(str, Path("model/sampling").glob("*.h"))),
            extra_compile_args=[*CFLAGS, "-ffp-contract=off"],  # the same sums on every machine
            py_limited_api=True,
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
        ),
        Extension(
            "model.emulated._device",
            sources=sorted(map(str, Path("model/emulated").glob("*.c"))),
            depends=sorted(map(str, Path("model/emulated").glob("*.h"))),
            extra_compile_args=CFLAGS,
            py_limited_api=True,
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
