"""A load client for LLM servers, with the metrics and names of ``vllm bench serve``.

`workload` says what is asked, `arrivals` when, `apis` in which form; `http` and `lines` are the client, `load` drives
it; `answers` reads what came, `metrics` reduces it, `report` and `plot` show it. `session` is a run from options to
results; `own_server` starts a RingServe for it, `processes` any server.
"""
