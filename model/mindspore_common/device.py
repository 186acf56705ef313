"""The device that MindSpore computes on."""

from __future__ import annotations

import mindspore as ms

from model.mindspore_common.settings import GraphSettings


def use_device(settings: GraphSettings) -> None:
    """Graph mode on the chosen device, for the whole process; and MindSpore's own collectives, if ranks are to use
    them: on CPU by its scheduler, whose environment variables (`MS_ROLE` …) must be set."""
    ms.set_context(mode=ms.GRAPH_MODE)
    if settings.device == "CPU":
        ms.set_device("CPU")
    else:
        ms.set_device("Ascend", settings.device_id)
    if settings.ranks.count > 1 and settings.ranks.reduce == "mindspore":
        from mindspore.communication import init

        init()
