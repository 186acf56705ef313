"""A load client for LLM servers, with the metrics and names of ``vllm bench serve``.

`workload` says what is asked and when, `apis` in which form, and reads what came; `load` drives the client; `metrics`
reduces the answers, `report` shows them. `session` is a run from options to results, `servers` who is asked.
"""
