"""`/openapi.json`: what the front takes and answers, with the limits of the model that is served.

What the parsers know as a table is taken from there; the tests hold the rest against the parsers and real answers.
"""

from pipeline.front.api.openapi.document import openapi_document
from pipeline.front.api.openapi.route import OpenApiRoute

__all__ = ["OpenApiRoute", "openapi_document"]
