"""Other weights for a server that runs, whatever happens to it meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from scripts.lab.errors import BenchError
from scripts.lab.http import Client

_PATIENCE_S, _PAUSE_S = 90.0, 0.1
_PATH = "/admin/weights"


async def change(base_url: str, folder: Path) -> dict[str, Any]:
    """What the server says when it is over: of each replica its weights, and of the change its outcome. Raises
    BenchError when it is refused, or does not end."""
    client, until = Client(base_url, keep_alive=False), time.monotonic() + _PATIENCE_S
    asked = False
    while time.monotonic() < until:
        try:
            if not asked:
                body = json.dumps({"folder": str(folder)}).encode()
                reply = await client.send(client.request("POST", _PATH, body))
                asked = reply.status in (202, 409)  # it may have heard of it before its front was lost
                if not asked and reply.status != 503:
                    raise BenchError(f"new weights: status {reply.status}: {reply.body[:300]!r}")
            else:
                reply = await client.send(client.request("GET", _PATH))
                report = json.loads(reply.body) if reply.status == 200 else {}
                if report.get("state") == "idle":
                    return dict(report)
        except OSError:
            pass
        await asyncio.sleep(_PAUSE_S)
    raise BenchError(f"new weights: no end within {_PATIENCE_S:.0f} s")
