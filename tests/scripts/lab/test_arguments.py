"""Types of arguments, and the line of usage."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import ArgumentTypeError

import pytest

from scripts.lab.arguments import count, counts, named, pair, positive, whole, within, words, write_json


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        (count, "1", 1),
        (whole(0), "0", 0),
        (counts(8), "1, 8", (1, 8)),
        (positive, "inf", float("inf")),
        (within(0, 1), "0", 0.0),
        (pair, " a = b=c ", ("a", "b=c")),
        (words("fruit", ("apple", "pear")), "pear,apple", ("pear", "apple")),
        (named("fruit", {"apple": 3}), " apple", (3,)),
    ],
)
def test_what_is_meant(type_, text, value):
    assert type_(text) == value


@pytest.mark.parametrize(
    ("type_", "text", "word"),
    [
        (count, "0", "at least 1"),
        (whole(2), "1", "at least 2"),
        (counts(8), "9", "from 1 to 8"),
        (counts(8), "1,,2", "numbers"),
        (counts(8), "-1", "numbers"),
        (positive, "nan", "not above 0"),
        (within(0, 1), "1", r"not in \[0, 1\)"),
        (within(0), "nan", "not in"),
        (within(0), "inf", "not in"),
        (pair, "a", "NAME=VALUE"),
        (pair, "=b", "NAME=VALUE"),
        (pair, "a=\r\nb", "NAME=VALUE"),
        (words("fruit", ("apple", "pear")), "apple,plum", "unknown fruit 'plum'; there are apple, pear"),
    ],
)
def test_what_is_wrong_is_told(type_, text, word):
    with pytest.raises(ArgumentTypeError, match=word):
        type_(text)


def test_usage_names_the_module():
    command = [sys.executable, "-m", "scripts.bench.sampling", "--calls", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m scripts.bench.sampling [options]\n")


def test_json_is_written_where_a_file_was_asked_for(tmp_path):
    write_json(None, {})
    write_json(tmp_path / "told.json", {"a": [1]})
    assert json.loads((tmp_path / "told.json").read_text()) == {"a": [1]}
    with pytest.raises(SystemExit, match=r"nowhere/told\.json: No such file"):
        write_json(tmp_path / "nowhere" / "told.json", {})
