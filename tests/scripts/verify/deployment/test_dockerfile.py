from pathlib import PurePosixPath

import pytest

from scripts.lab.errors import BenchError
from scripts.verify.deployment.dockerfile import environment, ignored, parse

TEXT = """\
# a comment
FROM python:3.11-slim-bookworm AS build
RUN apt-get update \\
    # between its lines
    && apt-get install gcc
COPY a.txt b.txt ./

FROM python:3.11-slim-bookworm
COPY --from=build /opt/x /opt/x
ENV A=1 B="two words"
HEALTHCHECK --interval=10s --timeout=5s \\
    CMD ["python", "-c", "print([1])"]
CMD ["one", \\
     "two"]
"""


def test_steps_words_and_what_is_continued():
    build, last = parse(TEXT)
    assert (build.base, build.name, last.name) == ("python:3.11-slim-bookworm", "build", "")
    assert build.steps[0].text == "apt-get update && apt-get install gcc"
    assert build.steps[1].words == ("a.txt", "b.txt", "./")
    assert last.last("CMD") == ("one", "two")
    assert last.last("HEALTHCHECK") == ("python", "-c", "print([1])")
    assert last.last("USER") == ()
    assert environment(last.steps) == {"A": "1", "B": "two words"}


@pytest.mark.parametrize("text", ["RUN true", "FROM x\nADD a b", "FROM x\nCMD a b"])
def test_what_is_not_understood_is_refused(text):
    with pytest.raises(BenchError, match=r"before FROM|not understood|form with a list"):
        parse(text)


@pytest.mark.parametrize(
    ("path", "left_out"),
    [(".venv/bin/python", True), ("ipc/native.so", True), ("a/__pycache__/b.pyc", True), ("ipc/ring.py", False),
     ("a/.venv", False), ("dist.py", False)],
)  # fmt: skip
def test_what_the_context_leaves_out(path, left_out):
    assert ignored(PurePosixPath(path), [".venv", "**/__pycache__", "**/*.so", "dist"]) is left_out
