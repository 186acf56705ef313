"""Other weights while the server runs: a folder is checked beside the launcher (`check`), then one replica after the
other is started anew with it (`rollout` decides, `changes` does)."""

from pipeline.launcher.weights.changes import Changes

__all__ = ["Changes"]
