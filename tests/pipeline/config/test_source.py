"""YAML: what is read, and what is refused before anything is looked up in it."""

from __future__ import annotations

import pytest

from pipeline.config import load_configuration
from tests.pipeline.config.helpers import problems_of, the_problem


def test_anchors_aliases_and_merges(write):
    configuration = load_configuration(
        write("""
pipeline:
  model_dir: model
  cpus:
    front: &first [0]
    sampling: *first
  log: &log {level: debug}
model_config:
  <<: {model_name: merged, end_token: 9}
  end_token: 3
""")
    )
    assert configuration.pipeline.cpus.sampling == (0,)
    assert (configuration.model_config.model_name, configuration.model_config.end_token) == ("merged", 3)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xfe", "not UTF-8"),
        (b"a: [1", "not usable YAML"),
        (b"a: \0", "not usable YAML"),
        (b"a: *b", "undefined alias"),
        (b"a: 1\n---\nb: 2", "not usable YAML"),
        (b"#" * (1 << 20) + b"\n", "larger than 1024 KiB"),
        (b"[" * 100_000, "nested more than 32 deep"),
        (b"a: [" + b"1," * 30_000 + b"]", "more than 20000 values"),
        (b"a: &a [*a]", "an alias refers to a value that contains the alias"),
        (b"a: !!set {b}", "has the tag"),
        (b"3", "expected a mapping"),
    ],
)
def test_files_that_are_no_configuration(write, tmp_path, content, expected):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    assert any(expected in problem.message for problem in problems_of(path))


def test_a_billion_laughs(write):
    lines = ["l0: &l0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    problem = the_problem(write("\n".join(lines)))
    assert "its aliases expand to more than 20000 values" in problem.message
    assert problem.line > 0


def test_aliases_that_stand_for_many_levels(write):
    lines = ["l0: &l0 [x]"] + [f"l{n}: &l{n} [*l{n - 1}]" for n in range(1, 150)]
    assert "its aliases expand to more than 32 levels" in the_problem(write("\n".join(lines))).message


def test_a_file_that_is_missing(tmp_path):
    problem = the_problem(tmp_path / "gone.yaml")
    assert "No such file" in problem.message
    assert "Is a directory" in the_problem(tmp_path).message
