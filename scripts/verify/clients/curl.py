"""curl, which asks for HTTP/2 by an upgrade: python -m scripts.verify.clients.curl URL MODEL"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

CHECKS: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    ("create", "/v1/chat/completions", {}, '"completion_tokens":12'),
    ("stream", "/v1/chat/completions", {"stream": True}, "data: [DONE]"),
    ("unknown model", "/v1/chat/completions", {"model": "no"}, "model_not_found"),
    (
        "too long",
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "word " * 1500}]},
        "context_length",
    ),
    ("Ollama", "/api/chat", {"options": {"num_predict": 2}, "temperature": None, "max_tokens": None}, '"done":true'),
)


def main() -> None:
    url, model = sys.argv[1:3]
    version = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    print(json.dumps({"version": version}))
    for name, path, more, part in CHECKS:
        messages = [{"role": "user", "content": "What is a ring buffer?"}]
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 12, **more}
        command = [
            "curl",
            "-sS",
            "--http2",
            url + path,
            "-H",
            "content-type: application/json",
            "-d",
            json.dumps(body),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        why = "" if part in done.stdout else (done.stderr + done.stdout)[:300] or "an empty answer"
        print(json.dumps({"check": name, "why": why}))


if __name__ == "__main__":
    main()
