"""The device that MindSpore computes on."""

from __future__ import annotations

import mindspore as ms

from model.mindspore_common.cluster import join_cluster
from model.mindspore_common.ranks import join
from model.mindspore_common.settings import GraphSettings


def use_device(settings: GraphSettings) -> None:
    """Graph mode on the chosen device, for the whole process, which becomes a rank if there are several."""
    ms.set_context(mode=ms.GRAPH_MODE)
    if settings.device == "CPU":
        ms.set_device("CPU")
    else:
        ms.set_device("Ascend", settings.device_id)
    if settings.ranks.count > 1:
        join(settings.ranks)
        if settings.collectives == "mindspore":
            join_cluster(settings.ranks, settings.device_id)
