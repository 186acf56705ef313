"""Whether a folder's weights can take the place of others; ids of weights."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from model.checkpoint.files import index_files
from model.checkpoint.identity import weights_id
from pipeline.config import Override, load_configuration, load_folder, with_values
from pipeline.launcher.weights.check import SEED, RefusedError, examine, without_paths
from pipeline.launcher.weights.check_process import CheckProcess, _understood
from pipeline.runtime.weights import identify_weights
from scripts.lab.paths import ROOT
from tests.model.adapters.folders import Lora
from tests.model.families.checkpoints import load
from tests.pipeline.stages import write_byte_tokenizer
from tests.server.launched import wait_until

QWEN = load()["qwen2"]
FITS = {"vocab_size": 32000, "max_position_embeddings": 4096}  # configs/emulated_910b.yaml
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
FEW = [Override("pipeline.runner.kind", "mindspore", "test"), "pa_config.num_blocks=64", "pipeline.max_rows=2"]


def saved(folder, name="qwen2", **config):
    made = dataclasses.replace(QWEN, name=name, config={**QWEN.config, **config})
    made.save(folder)
    write_byte_tokenizer(folder, QWEN.config["vocab_size"] - 1)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def config(base):
    return load_folder(base, FEW)


@pytest.fixture
def other(tmp_path):
    return saved(tmp_path / "new", "others")


def spoil(folder, name, change):
    file = folder / name
    document = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**document, **change}))


def test_others_of_the_same_model_fit(base, config, other):
    found = examine(config, str(other))
    made = found.in_place_of(config)
    assert found.id == identify_weights(made) != identify_weights(config)
    assert made.model_config.checkpoint_path == made.tokenizer.vocab_file == made.pipeline.model_dir == other
    assert made.pa_config == config.pa_config
    assert examine(made, str(base)).id == identify_weights(config)  # and back again


def test_without_a_tokenizer_it_keeps_the_one_that_is_there(base, config, other):
    (other / "tokenizer.json").unlink()
    assert examine(config, str(other)).in_place_of(config).tokenizer.vocab_file == base


def test_what_training_leaves_in_a_tokenizer_is_no_difference(config, other):
    spoil(other, "tokenizer.json", {"padding": None, "truncation": None})
    assert examine(config, str(other)).id


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config.json", {"intermediate_size": 17}, "intermediate_size is 17, expected "),
        ("config.json", {"dtype": "bfloat16"}, "dtype is bfloat16, expected float32"),
        ("config.json", {"max_position_embeddings": 2}, "max_position_embeddings is 2, expected at least "),
        ("config.json", {"model_type": "llama"}, "family is llama, expected qwen2"),
        ("tokenizer_config.json", {"chat_template": TEMPLATE}, "its tokenizer or its chat template is another one"),
        (
            "generation_config.json",
            {"temperature": 0.5},
            "generation_config.json is {'temperature': 0.5}, exp",
        ),
    ],
)
def test_what_differs_is_named(config, other, file, change, words):
    spoil(other, file, change)
    with pytest.raises(RefusedError) as refused:
        examine(config, str(other))
    assert words in str(refused.value)


def test_weights_that_are_not_all_there(config, other):
    tensors = dict(list(QWEN.shapes.items())[1:])
    dataclasses.replace(QWEN, shapes=tensors).save(other)
    with pytest.raises(RefusedError, match="1 missing"):
        examine(config, str(other))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda place: place, "does not exist"),
        (lambda place: place.mkdir() or place, "has no config.json"),
        (lambda place: place.write_text("") or place, "is a file"),
        (lambda place: place.name, "must be an absolute path"),
    ],
)
def test_what_is_no_folder_of_a_model(config, tmp_path, make, words):
    with pytest.raises(RefusedError, match=words):
        examine(config, str(make(tmp_path / "place")))


def test_an_adapter_that_can_not_be_read_any_more_is_named_without_its_path(base, other, tmp_path):
    adapter = Lora(QWEN, 1).save(tmp_path / "secret" / "a")
    config = load_folder(base, [*FEW, Override("pipeline.lora.adapters", {"a": str(adapter)}, "test")])
    assert examine(config, str(other)).id
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(RefusedError, match="a is not an adapter") as refused:
        examine(config, str(other))
    assert "secret" not in str(refused.value)


def test_an_emulated_device_has_another_seed(tmp_path):
    config, made = load_configuration(ROOT / "configs" / "emulated_910b.yaml"), {}
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({**FITS, "name": name}))
        made[name] = examine(config, str(tmp_path / name))
    assert made["a"].id != made["b"].id
    assert made["a"].in_place_of(config).pipeline.runner.seed == made["a"].values[SEED]
    (tmp_path / "a" / "config.json").write_text(json.dumps({**FITS, "vocab_size": 9}))
    with pytest.raises(RefusedError, match="vocab_size is 9, expected 32000"):
        examine(config, str(tmp_path / "a"))


def test_no_path_but_the_one_that_was_given():
    text = "/m/new/config.json: no; /home/a/old/tokenizer.json, and '/m/newer/x' differ; see /a/b"
    assert without_paths(text, "/m/new/") == "/m/new/config.json: no; tokenizer.json, and 'x' differ; see b"


def test_beside_the_launcher(config, other):
    for folder in (other, other / "none"):
        process, found = CheckProcess(config, str(folder)), []
        wait_until(lambda: found.append(process.result()) or found[-1] is not None, "the check ends", 60)  # noqa: B023
        if folder == other:
            assert found[-1] == examine(config, str(other))
        else:
            assert "does not exist" in str(found[-1])


@pytest.mark.parametrize("said", [b"", b"a library is here\n{}", b"[1]", b"7", b'{"unknown": 1}', b"\xff"])
def test_what_can_not_be_understood_is_a_refusal(said, caplog):
    assert "the log says why" in str(_understood(said))
    assert repr(said) in caplog.text


def test_what_libraries_print_is_not_taken_for_the_result(config, tmp_path, monkeypatch, capfd):
    """Before anything of it runs, a module in this directory makes the check print."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pipeline.config as c; f = c.load_configuration\n"
        "c.load_configuration = lambda path: os.write(1, b'a library is here\\n') and f(path)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    process, found = CheckProcess(config, str(tmp_path / "none")), []
    wait_until(lambda: found.append(process.result()) or found[-1] is not None, "the check ends", 60)
    assert "does not exist" in str(found[-1])
    assert "a library is here" in capfd.readouterr().err


def test_a_router_has_no_weights_of_its_own():
    """Nor one whose nodes come later."""
    config = load_configuration(ROOT / "configs" / "emulated_910b.yaml")
    assert identify_weights(config)
    assert identify_weights(with_values(config, {"pipeline.max_nodes": 2})) == ""


# ---- ids ---------------------------------------------------------------------------------------------------------


def test_an_id_is_of_what_is_computed_and_not_of_where_it_lies(base, tmp_path):
    content = (base / "config.json").read_bytes()
    same = shutil.copytree(base, tmp_path / "same")
    shuffled = dataclasses.replace(QWEN, shapes=dict(reversed(QWEN.shapes.items()))).save(tmp_path / "shuffled")
    ids = {weights_id(content, index_files(folder)) for folder in (base, same, shuffled)}
    assert len(ids) == 1
    (one,) = ids
    assert len(one) == 16
    assert int(one, 16) >= 0


def test_another_value_or_another_configuration_is_another_id(base, tmp_path):
    content, file = b"{}", shutil.copytree(base, tmp_path / "new") / "model.safetensors"
    before = weights_id(content, index_files(base))
    for tensor in list(index_files(file.parent).values())[::5]:
        data = bytearray(file.read_bytes())
        offset, size = tensor.pieces[-1]
        data[offset + size - 1] ^= 1
        file.write_bytes(data)
        assert weights_id(content, index_files(file.parent)) != before
        data[offset + size - 1] ^= 1
        file.write_bytes(data)
    assert weights_id(content, index_files(file.parent)) == before
    assert weights_id(b"{ }", index_files(base)) != before
