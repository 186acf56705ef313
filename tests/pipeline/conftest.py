"""A small model's files, which a configuration refers to; and a statistics page."""

import json

import pytest

HUGGING_FACE = {
    "model_type": "llama",
    "vocab_size": 2048,
    "max_position_embeddings": 1024,
    "eos_token_id": [2, 5],
}


@pytest.fixture
def model_dir(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(HUGGING_FACE))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def write(tmp_path, model_dir):
    """Writes a configuration beside the model's folder."""

    def write(text, name="server.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def page():
    """A statistics page."""
    from pipeline.stats import StatsPage

    page = StatsPage.create()
    page.unlink()
    yield page
    page.close()


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory):
    """Of one token per byte."""
    from tests.pipeline.stages import write_byte_tokenizer

    return write_byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def serve(tokenizer_file):
    """Makes a `Server`, or one of another kind, which ends with the test."""
    from tests.pipeline.stages import Server

    servers = []

    def start(kind=Server, **options):
        servers.append(kind(tokenizer_file, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
