"""What the live page shows: figures of the statistics page, a few times a second, while somebody watches."""

from pipeline.front.live.feed import LiveFeed
from pipeline.front.live.figures import figures
from pipeline.front.live.sample import Sample

__all__ = ["LiveFeed", "Sample", "figures"]
