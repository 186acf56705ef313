"""What the live page shows: figures of the statistics page, a few times a second, while somebody watches."""

from pipeline.front.page.feed import LiveFeed
from pipeline.front.page.figures import figures
from pipeline.front.page.sample import Sample

__all__ = ["LiveFeed", "Sample", "figures"]
