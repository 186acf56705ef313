"""llama.cpp's own HTTP server, from the package xllamacpp. Runs in its environment:

python serve_llama.py FILE.gguf PORT SEQUENCES CONTEXT THREADS
"""

from __future__ import annotations

import signal
import sys

import xllamacpp


def main() -> None:
    file, port, sequences, context, threads = sys.argv[1], *map(int, sys.argv[2:6])
    params = xllamacpp.CommonParams()
    params.model.path = file
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = sequences
    params.n_ctx = sequences * context
    params.n_predict = -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_prompt = False
    params.n_gpu_layers = 0
    server = xllamacpp.Server(params)
    print(f"listening on {server.listening_address}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
