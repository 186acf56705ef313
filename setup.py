"""Builds the C and C++ code; everything else is declared in pyproject.toml."""

import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

WARNINGS = ["-Wall", "-Wextra"]
if os.environ.get("RINGSERVE_WERROR"):  # set by the tests; a newer compiler's new warning must not stop a user
    WARNINGS.append("-Werror")
CFLAGS = ["-std=c11", "-O3", *WARNINGS, "-fvisibility=hidden"]
EXACT = [*CFLAGS, "-ffp-contract=off"]  # the same sums on every machine
SAMPLING_HEADERS = sorted(map(str, Path("model/sampling").glob("*.h")))
CXXFLAGS = ["-std=c++17", "-O3", "-ffp-contract=fast", *WARNINGS, "-fvisibility=hidden"]


class SharedLibrary(Extension):
    """A plain shared library without Python in it, placed beside the package's modules."""


class BuildExtension(build_ext):
    def get_ext_filename(self, fullname: str) -> str:
        """A shared library keeps its plain name: it is opened by path, not imported."""
        if isinstance(self.ext_map.get(fullname), SharedLibrary):
            return str(Path(*fullname.split("."))) + ".so"
        return super().get_ext_filename(fullname)


def openvino_operations() -> list[Extension]:
    """None where the build lacks the release of OpenVINO that the engine knows (see pyproject.toml)."""
    package = find_spec("openvino")
    if package is None or package.origin is None or not version("openvino").startswith("2026.4."):
        return []
    headers = Path(package.origin).parent / "include"
    if not (headers / "openvino").is_dir():
        return []
    return [
        SharedLibrary(
            "model.openvino.libringserve_openvino",
            sources=sorted(str(path) for path in Path("model/openvino/csrc").glob("*.cc")),
            depends=sorted(str(path) for path in Path("model/openvino/csrc").glob("*.h")),
            language="c++",
            # as a system's headers: their warnings are not ours
            extra_compile_args=[*CXXFLAGS, "-isystem", str(headers)],
        )
    ]


ParallelCompile().install()
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
            depends=SAMPLING_HEADERS,
            extra_compile_args=EXACT,
            py_limited_api=True,
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
        ),
        Extension(
            "model.emulated._device",
            # it sums up as the sampler does, with its primitives
            sources=[*sorted(map(str, Path("model/emulated").glob("*.c"))), "model/sampling/vector.c"],
            depends=[*sorted(map(str, Path("model/emulated").glob("*.h"))), *SAMPLING_HEADERS],
            extra_compile_args=EXACT,
            py_limited_api=True,
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
        ),
        Extension(
            "pipeline.inference._step",
            sources=["pipeline/inference/_step.c"],
            depends=sorted(map(str, Path("pipeline/inference").glob("*.h"))),
            extra_compile_args=CFLAGS,
            py_limited_api=True,
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
        ),
        SharedLibrary(
            "model.libringserve_attention",
            sources=sorted(str(path) for path in Path("model/csrc").glob("*.cc")),
            depends=sorted(str(path) for path in Path("model/csrc").glob("*.h")),
            language="c++",
            extra_compile_args=[*CXXFLAGS, "-pthread"],
            # nodelete: helper threads are parked in its code until the process ends
            extra_link_args=["-pthread", "-Wl,-z,nodelete"],
        ),
        *openvino_operations(),
    ],
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
