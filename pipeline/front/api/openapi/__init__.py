"""`/openapi.json`: the front's requests and answers, with the limits of the model that is served.

Schemas of requests come from the models that parse them; tests compare what is said of answers with real ones.
"""

from pipeline.front.api.openapi.document import openapi_document
from pipeline.front.api.openapi.route import OpenApiRoute

__all__ = ["OpenApiRoute", "openapi_document"]
