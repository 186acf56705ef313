"""Ray Serve as the control plane of routers and nodes: it places, watches, scales and upgrades them, and carries no
token. `python -m pipeline.ray` runs an application on this machine; `application` is for `serve run` and clusters.
Only `application` and the command need the extra `ray`."""
