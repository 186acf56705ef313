"""The Dockerfile and the Kubernetes manifests, tried out without a container engine or a cluster."""
