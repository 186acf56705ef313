"""The microbenchmarks of `ipc`, side by side with what else moves bytes between two Python processes.

A *pair* is a fresh leader process that starts a fresh follower; both run the same list of jobs over one transport.
`plan` says which pairs, `run` runs them in rounds that alternate between transports, `report` shows what came of it,
`targets` judges it. What is compared is in `transports`.
"""
