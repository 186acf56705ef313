"""What of a changed configuration takes effect, what waits for a restart, and what is refused."""

from __future__ import annotations

import pytest

from pipeline.config import ConfigurationError, load_configuration
from pipeline.launcher.reload import Reload
from scripts.lab.paths import ROOT


def configured(*overrides):
    return load_configuration(ROOT / "configs" / "emulated_910b.yaml", overrides)


def test_what_can_change_does_and_the_rest_waits():
    current = configured()
    reload = Reload.of(current, configured("pipeline.max_queue=7", "pipeline.max_rows=3", "pipeline.log.level=debug"))
    assert reload.config.pipeline.max_queue == reload.live["pipeline.max_queue"] == 7
    assert reload.config.pipeline.max_rows == current.pipeline.max_rows
    changed = {"pipeline.max_queue", "pipeline.max_background", "pipeline.log.level"}
    assert set(reload.changed) == changed
    assert reload.waiting == ("pipeline.max_rows", "pipeline.logit_rows")
    text = reload.describe()
    assert "pipeline.max_queue = 7" in text
    assert text.endswith("; needs a restart: pipeline.max_rows, pipeline.logit_rows")


def test_nothing_has_changed():
    reload = Reload.of(configured(), configured())
    assert (reload.changed, reload.waiting) == ((), ())
    assert "nothing that can change" in reload.describe()


def test_what_can_change_must_fit_to_what_can_not():
    """The ring of requests keeps its size until the server is started anew."""
    larger = configured("pipeline.body_limit_bytes=16777216", "pipeline.rings.request_bytes=33554432")
    with pytest.raises(ConfigurationError, match="request_bytes"):
        Reload.of(configured(), larger)


def test_adapters_wait_for_a_restart_and_their_names_stay_taken():
    current = configured("pipeline.lora.adapters={a: x}")
    reload = Reload.of(current, configured("pipeline.lora.adapters={b: x}", "pipeline.max_queue=7"))
    assert (set(reload.changed), reload.waiting) == (
        {"pipeline.max_queue", "pipeline.max_background"},
        ("pipeline.lora.adapters",),
    )
    assert list(reload.config.pipeline.lora.adapters) == ["a"]
    assert reload.describe().endswith("; needs a restart: pipeline.lora.adapters")
    with pytest.raises(ConfigurationError, match=r"a, which is the model's own name \(pipeline.model_aliases"):
        Reload.of(current, configured("pipeline.model_aliases=[a]"))
