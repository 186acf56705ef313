"""A decoder of many families as a step executor on x86 CPUs. Importing this does not import OpenVINO; loading a
runner does."""

from model.openvino.runner import OpenVinoRunner
from model.openvino.settings import OpenVinoSettings

__all__ = ["OpenVinoRunner", "OpenVinoSettings"]
