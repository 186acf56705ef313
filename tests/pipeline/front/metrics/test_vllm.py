"""Metrics under vLLM's names, for endpoint pickers, autoscalers and dashboards."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def families(served):
    return {family.name: family for family in text_string_to_metric_families(served.http.get("/metrics").text)}


def test_they_are_there_as_a_setting(serve):
    served = serve(vllm_metrics=True)
    for prompt in ("a b", "a @reason=eos", "a @reason=stop", "a @refuse=400"):
        served.complete(prompt, max_tokens=2)
    served.obey("numbers")
    found = families(served)
    successes = {sample.labels["finished_reason"]: sample.value for sample in found["vllm:request_success"].samples}
    assert successes == {"length": 1, "stop": 2}  # what was refused is no success
    (waiting,) = found["vllm:num_requests_waiting"].samples
    assert waiting.labels == {"model_name": "tiny", "engine": "0"}
    assert waiting.value == families(served)["ringserve_num_requests_waiting"].samples[0].value
    (usage,) = found["vllm:kv_cache_usage_perc"].samples
    assert 0 <= usage.value <= 1
    (cache,) = found["vllm:cache_config_info"].samples
    assert cache.value == 1
    assert cache.labels == {"model_name": "tiny", "engine": "0", "block_size": "16", "num_gpu_blocks": "65536"}
    first = found["vllm:time_to_first_token_seconds"]
    (count,) = [sample.value for sample in first.samples if sample.name.endswith("_count")]
    assert (first.type, count) == ("histogram", 3)
    assert found["vllm:generation_tokens"].samples[0].name == "vllm:generation_tokens_total"


def test_without_the_setting_they_are_not(shared):
    assert not [name for name in families(shared) if name.startswith("vllm:")]
