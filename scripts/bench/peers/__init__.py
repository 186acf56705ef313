"""RingServe beside other servers: same checkpoint, same client, one after the other.

`checkpoint` makes the model, `to_gguf` and `serve_llama` run in llama.cpp's environment, `peers` says how each server
is installed and started, `measure` drives them and shows what came of it.
"""
