"""What users and developers run beside the server; it needs a checkout. There: ``python -m scripts.bench.ipc``."""
