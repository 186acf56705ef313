"""The live page: metrics of the statistics page, a few times a second, while a browser shows the page."""

from pipeline.front.page.feed import LiveFeed
from pipeline.front.page.figures import Sample, figures

__all__ = ["LiveFeed", "Sample", "figures"]
