"""Ray Serve as the control plane of routers and nodes: it places, watches, scales and upgrades them, and carries no
token. `python -m pipeline.ray` runs all of it on this machine; `application` is for clusters. Only these two need the
extra `ray`."""
