"""Builds the C extensions; everything else is declared in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

CFLAGS = ["-std=c11", "-O3", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"]

setup(
    ext_modules=[
        Extension(
            "ipc._core",
            sources=["ipc/_core.c"],
            depends=["ipc/ring_protocol.h", "ipc/ring_layout.h"],
            extra_compile_args=CFLAGS,
            py_limited_api=True,
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
        ),
        Extension(
            "model.sampling._kernels",
            sources=sorted(str(path) for path in Path("model/sampling").glob("*.c")),
            depends=sorted(str(path) for path in Path("model/sampling").glob("*.h")),
            extra_compile_args=[*CFLAGS, "-ffp-contract=off"],  # the same sums on every machine
            py_limited_api=True,
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
        ),
        Extension(
            "model.emulated._device",
            sources=["model/emulated/_device.c"],
            depends=sorted(str(path) for path in Path("model/emulated").glob("*.h")),
            extra_compile_args=CFLAGS,
            py_limited_api=True,
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
