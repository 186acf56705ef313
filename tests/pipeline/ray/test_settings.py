"""What a launcher is started with, as its own options read it."""

from __future__ import annotations

import argparse

import pytest
from pydantic import ValidationError

from model.demo import DEMO_DIR
from pipeline.launcher.certificates import make_certificates
from pipeline.launcher.options import add_options, load
from pipeline.ray.settings import NodeSettings


def loaded(settings, *more):
    add_options(parser := argparse.ArgumentParser())
    return load(parser.parse_args(settings.launch("node", "pipeline.link.listen=127.0.0.1:0", *more)))


@pytest.mark.parametrize("model", [str(DEMO_DIR), "configs/demo.yaml"], ids=["folder", "file"])
def test_own_settings_go_before_those_that_are_usual(model, tmp_path):
    make_certificates(tmp_path, ["127.0.0.1"])
    settings = NodeSettings(
        model=model,
        certificates=str(tmp_path),
        settings=["pipeline.metrics_port=9", "pipeline.max_queue=7"],
        drain_s=3,
    )
    pipeline = loaded(settings).pipeline
    assert (pipeline.drain_timeout_s, pipeline.metrics_port, pipeline.max_queue) == (3, 9, 7)
    assert pipeline.link.certificate == tmp_path / "node.pem"


def test_what_is_no_setting_is_refused():
    with pytest.raises(ValidationError, match="rows"):
        NodeSettings(model="m", certificates="c", rows=3)
