"""A load client for LLM servers, with the metrics and names of ``vllm bench serve``.

`workload` says what is asked and when, `apis` in which form; `load` drives the client; `answers` reads what came,
`metrics` reduces it, `report` and `plot` show it. `session` is a run from options to results, `servers`
what is asked.
"""
