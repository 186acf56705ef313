"""`/openapi.json`: the front's requests and answers, with the limits of the model that is served.

The parsers' tables are used as they are; tests compare the rest with the parsers and with real answers.
"""

from pipeline.front.api.openapi.document import openapi_document
from pipeline.front.api.openapi.route import OpenApiRoute

__all__ = ["OpenApiRoute", "openapi_document"]
