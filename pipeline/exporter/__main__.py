"""The exporter's process: ``python -m pipeline.exporter <descriptor>``, as the launcher starts it."""

import sys

from pipeline.exporter.main import run_exporter

if __name__ == "__main__":
    sys.exit(run_exporter(int(sys.argv[-1])))
