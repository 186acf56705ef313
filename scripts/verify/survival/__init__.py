"""A real server under load while its processes are killed, stopped and starved: for chaos.py, soak.py and tests."""
