"""A collector: takes OTLP over HTTP, and keeps the spans of what it could decode."""

from __future__ import annotations

import gzip
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

WAIT_S = 30


class Collector:
    """`url` for `pipeline.otlp_endpoint`; `status`: what it answers."""

    def __init__(self):
        self.resources, self.headers = [], []
        self._requests, self._parts = {}, defaultdict(dict)
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                if collector.status == 200:
                    collector.take(ExportTraceServiceRequest.FromString(body), self.headers)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(collector.status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, request, headers):
        self.headers.append(dict(headers))
        for resource in request.resource_spans:
            self.resources.append({each.key: value_of(each.value) for each in resource.resource.attributes})
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self._parts[span.parent_span_id][span.name] = span
                whole = [span for span in scope.spans if span.kind == span.SPAN_KIND_SERVER]
                self._requests.update((span.span_id, span) for span in whole)

    def requests(self):
        """The spans of requests by their ids, each with its parts by name."""
        return {span_id: (span, self._parts[span_id]) for span_id, span in list(self._requests.items())}

    def request(self, span_id):
        """Once it is there."""
        end = time.monotonic() + WAIT_S
        while span_id not in self._requests:
            assert time.monotonic() < end, f"no span {span_id.hex()} among {len(self._requests)}"
            time.sleep(0.02)
        return self._requests[span_id], self._parts[span_id]

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def value_of(value):
    if value.WhichOneof("value") == "array_value":
        return [value_of(each) for each in value.array_value.values]
    return getattr(value, value.WhichOneof("value"))


def attributes_of(span):
    return {each.key: value_of(each.value) for each in span.attributes}
