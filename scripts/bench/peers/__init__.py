"""RingServe beside other servers: same checkpoint, same client, in turns.

`checkpoint` makes the model; `to_gguf`, `to_openvino` turn it into what llama.cpp and openvino_genai read. `peers`
says how each server is started, `environments` how it is installed; `servers` runs some of them, `loads` puts a load
on one, `rounds` lets them take turns and writes what came of it into the `journal`; `goals`, `report` and `plot` show
it. `serve_genai` is the HTTP server that openvino_genai lacks.
"""
