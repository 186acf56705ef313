"""The server: front, preprocess, inference, sampling and the launcher that holds them together."""

import os

# Before numpy is imported: OpenBLAS would start a thread per CPU in each process, none of which has anything to
# multiply here; and where one can't be started, for want of memory, it waits for it for ever at exit.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
