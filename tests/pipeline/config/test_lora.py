"""Adapters: where they are, what they are called, and which engine takes them."""

from __future__ import annotations

import pytest

from model.adapters import read_adapter
from model.families import read_spec_file
from pipeline.config import MOST_ADAPTERS, Override, live_keys, load_configuration, load_folder, values_of
from pipeline.config.room import find_room
from tests.model.adapters.folders import Lora
from tests.model.families.checkpoints import load
from tests.pipeline.config.helpers import EMULATED, problems_of, the_problem

MERGED, ADAPTERS = "pipeline.lora.merged", "pipeline.lora.adapters"


@pytest.fixture
def folders(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path


def file(lora, **more):
    settings = {"model_dir": "model", "lora": lora, "model_name": "org/base", **more}
    return "".join(["pipeline:\n", *(f"  {key}: {value}\n" for key, value in settings.items())])


def test_paths_are_relative_to_the_file_and_slots_in_its_order(write, folders, tmp_path):
    config = load_configuration(
        write(file("{merged: one, adapters: {z: two, org/a-1.5:v2: ../" + tmp_path.name + "/one}}"))
    )
    assert config.pipeline.lora.merged == folders / "one"
    assert list(config.pipeline.lora.adapters.items()) == [("z", folders / "two"), ("org/a-1.5:v2", folders / "one")]
    (tmp_path / "kept").mkdir()
    again = tmp_path / "kept" / "kept.yaml"
    again.write_text(config.to_yaml())
    assert list(load_configuration(again).pipeline.lora.adapters) == ["z", "org/a-1.5:v2"]
    assert load_configuration(again).pipeline == config.pipeline


def test_none_is_the_default(write):
    lora = load_configuration(write(EMULATED)).pipeline.lora
    assert (lora.merged, lora.adapters) == (None, {})
    assert not {MERGED, ADAPTERS} & live_keys()


def test_the_command_line_replaces_those_of_the_file(write, folders, monkeypatch):
    path = write(file("{adapters: {a: gone, b: one}}"))
    monkeypatch.chdir(folders / "one")
    named = Override(ADAPTERS, {"b.c": ".", "d": "../two"}, "--lora b.c=. --lora d=../two")
    assert load_configuration(path, [named]).pipeline.lora.adapters == {"b.c": folders / "one", "d": folders / "two"}
    assert load_configuration(path, [f"{ADAPTERS}.a=../two"]).pipeline.lora.adapters["a"] == folders / "two"


@pytest.mark.parametrize(
    ("lora", "expected"),
    [
        ("{adapters: [one]}", "is ['one']; expected a mapping of names (letters"),
        ("{adapters: {'a b': one}}", "'a b' is no name that fits: expected letters, digits, and . _ : @ + / -"),
        ("{adapters: {'': one}}", "'' is no name"),
        ("{adapters: {a/: one}}", "'a/' is no name"),
        ("{adapters: {-a: one}}", "'-a' is no name"),
        ("{adapters: {" + "a" * 256 + ": one}}", "aaaa' is no name"),
        ("{adapters: {a: 3}}", "of a it has 3: expected a path"),
        ("{adapters: {a: {b: one}}}", "of a it has a mapping: expected a path"),
        ("{adapters: {a: one, a: two}}", "a is given twice"),
        (
            "{adapters: {org/base: one}}",
            "org/base, which is the model's own name (pipeline.model_name); choose another",
        ),
        ("{adapters: {other: one}}", "other, which is the model's own name (pipeline.model_aliases)"),
        ("{adapters: {'other:latest': one}}", "the model's own name (pipeline.model_aliases)"),
        ("{adapters: {llama2: one}}", "the model's own name (serving_config.model_route)"),
        ("{adapters: {a: one, 'a:latest': two}}", "a:latest, which is the same as a in Ollama's API"),
        ("{adapters: {a/generate: one}}", "ends like a path of the API"),
        ("{adapter: {a: one}}", "did you mean pipeline.lora.adapters?"),
    ],
)
def test_names_that_are_refused(write, folders, lora, expected):
    assert expected in the_problem(write(file(lora, model_aliases="[other]"))).message


def test_there_are_not_more_than_can_be_counted(write, folders):
    many = ", ".join(f"a{number}: one" for number in range(MOST_ADAPTERS + 1))
    assert (
        f"at most {MOST_ADAPTERS} names, not {MOST_ADAPTERS + 1}"
        in the_problem(write(file("{adapters: {" + many + "}}"))).message
    )


def test_folders_that_are_not_there_are_named_each_in_its_line(write, folders):
    text = file("\n    merged: gone\n    adapters:\n      a: one\n      b: model/config.json")
    found = problems_of(write(text))
    assert [(one.line, one.key) for one in found] == [(4, MERGED), (7, ADAPTERS)]
    assert "b is " in found[1].message
    assert "give one as PEFT writes it" in found[1].message
    elsewhere = load_configuration(write(text), other_host=True)
    assert [warning.line for warning in elsewhere.warnings] == [4, 7]


def test_engines_that_take_none_say_which_does(write, folders):
    path = write(file("{adapters: {a: one, b: two}}"))
    for kind in ("mindformers", "openvino"):
        message = the_problem(path, [f"pipeline.runner.kind={kind}"]).message
        assert f"a, b, but pipeline.runner.kind is {kind}, which takes none; mindspore takes several" in message
    emulated = load_configuration(write(EMULATED), [f"{ADAPTERS}={{a: nowhere}}"])  # which reads nothing of them
    assert list(emulated.pipeline.lora.adapters) == ["a"]
    assert "an emulated device has no weights" in the_problem(write(EMULATED), [f"{MERGED}=one"]).message


def test_they_are_counted_where_memory_decides(tmp_path):
    checkpoint = load()["qwen2"]
    base = checkpoint.save(tmp_path / "base", bfloat16=True)
    (base / "tokenizer.json").write_text("{}")
    adapters = {name: Lora(checkpoint, seed).save(tmp_path / name) for seed, name in enumerate("ab")}
    values = values_of(load_folder(base, ["pipeline.runner.kind=mindspore"]))
    taken = find_room(values, 4).taken
    sizes = sum(read_adapter(folder, read_spec_file(base)).size_bytes for folder in adapters.values())
    assert find_room(values | {ADAPTERS: adapters}, 4).taken == taken + sizes
    changed = sum(2 * outputs * inputs for outputs, inputs in Lora(checkpoint).modules().values())
    assert find_room(values | {MERGED: adapters["a"]}, 4).taken == taken + changed  # stays float32
    assert find_room(values | {ADAPTERS: {"a": tmp_path}}, 4).taken > taken  # the launcher says what is wrong
