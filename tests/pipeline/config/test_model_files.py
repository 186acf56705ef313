"""What follows from the files of a model."""

from __future__ import annotations

import pytest

from pipeline.config import load_configuration
from tests.pipeline.config.helpers import MODEL, the_problem


@pytest.mark.parametrize("named", ["model", "model/config.json"])
def test_a_hugging_face_model_by_its_configuration(write, model_dir, named):
    configuration = load_configuration(write(f"model_config: {{model_cfg_path: {named}}}"))
    assert configuration.model_config.model_cfg_path == model_dir / "config.json"
    assert configuration.model_config.checkpoint_path == configuration.tokenizer.vocab_file == model_dir


def test_links_are_kept(write, tmp_path, model_dir):
    """Model stores keep files under their hashes and link to them; what belongs together lies beside the link."""
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (model_dir / "config.json").rename(blobs / "3f2a")
    (model_dir / "config.json").symlink_to(blobs / "3f2a")
    configuration = load_configuration(write("model_config: {model_cfg_path: model/config.json}"))
    assert configuration.model_config.checkpoint_path == configuration.tokenizer.vocab_file == model_dir


def test_json_may_be_indented_by_tabs(write, model_dir):
    (model_dir / "config.json").write_text('{\n\t"vocab_size": 99,\n\t"max_position_embeddings": 64\n}')
    assert load_configuration(write(MODEL)).model_config.vocab_size == 99


MINDFORMERS = """\
context: {{device_target: Ascend}}
load_checkpoint: {load!r}
model:
  model_config: {{vocab_size: 32000, seq_length: 4096, eos_token_id: 7, checkpoint_name_or_path: {name!r}}}
"""


@pytest.mark.parametrize(
    ("load", "name", "expected"),
    [
        ("weights.ckpt", "llama2_7b", "weights.ckpt"),
        ("", "weights.ckpt", "weights.ckpt"),
        ("", "sub/rank_0", "sub/rank_0"),
    ],
)
def test_a_mindformers_model_names_its_checkpoint(write, tmp_path, load, name, expected):
    folder = tmp_path / "mindformers"
    (folder / "sub" / "rank_0").mkdir(parents=True)
    (folder / "weights.ckpt").write_bytes(b"")
    (folder / "predict.yaml").write_text(MINDFORMERS.format(load=load, name=name))
    path = write("model_config: {model_cfg_path: mindformers/predict.yaml}\ntokenizer: {vocab_file: model}\n")
    configuration = load_configuration(path)
    model = configuration.model_config
    assert model.checkpoint_path == folder / expected
    assert (model.vocab_size, model.max_generate_length, model.end_token) == (32000, 4096, 7)
    assert configuration.pipeline.runner.device == "Ascend"


def test_a_checkpoint_that_mindformers_would_download(write, tmp_path):
    (tmp_path / "predict.yaml").write_text(MINDFORMERS.format(load="", name="llama2_7b"))
    path = write("model_config:\n  model_cfg_path: predict.yaml\ntokenizer: {vocab_file: model}\n")
    problem = the_problem(path)
    assert (problem.line, problem.key) == (2, "model_config.checkpoint_path")
    assert "'llama2_7b'" in problem.message


def test_random_weights_need_no_checkpoint(write, tmp_path):
    (tmp_path / "predict.yaml").write_text(MINDFORMERS.format(load="", name="llama2_7b"))
    path = write("model_config: {model_cfg_path: predict.yaml}\ntokenizer: {vocab_file: model}\n")
    configuration = load_configuration(path, ["pipeline.runner.random_weights=true"])
    assert configuration.model_config.checkpoint_path is None


def test_a_folder_without_a_tokenizer(write, model_dir):
    (model_dir / "tokenizer.json").unlink()
    assert "neither a tokenizer.json nor a tokenizer.model" in the_problem(write(MODEL)).message


@pytest.mark.parametrize("content", ["{", "[]", "\xff", "[" * 100_000, '{"a": ' + "1" * 5000 + "}"])
def test_a_model_configuration_that_cannot_be_read(write, model_dir, content):
    (model_dir / "config.json").write_text(content, encoding="latin-1")
    problem = the_problem(write("\n" + MODEL))
    assert (problem.line, problem.key) == (2, "pipeline.model_dir")
    assert str(model_dir / "config.json") in problem.message


@pytest.mark.parametrize(
    ("runner", "kind"),
    [
        ("{}", "mindspore"),
        ("{kind: auto}", "mindspore"),
        ("{kind: mindformers}", "mindformers"),
        ("{device: Ascend}", "mindformers"),
    ],
)
def test_which_engine_serves_a_folder(write, model_dir, runner, kind):
    assert load_configuration(write(MODEL), [f"pipeline.runner={runner}"]).pipeline.runner.kind == kind


def test_a_mindformers_file_is_for_mindformers(write, tmp_path):
    (tmp_path / "predict.yaml").write_text(MINDFORMERS.format(load="", name="").replace("Ascend", "CPU"))
    path = write(
        "model_config: {model_cfg_path: predict.yaml, checkpoint_path: model}\ntokenizer: {vocab_file: model}\n"
    )
    assert load_configuration(path).pipeline.runner.kind == "mindformers"
    problem = the_problem(path, ["pipeline.runner.kind=mindspore"])
    assert "which reads a Hugging Face config.json, but model_config.model_cfg_path is" in problem.message
