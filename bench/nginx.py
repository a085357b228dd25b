"""nginx with one worker, which passes everything on and checks nothing: what to compare with."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp.test_utils import unused_port

from tests.support.processes import descendants

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.tools import Tool

_CONFIGURATION = """
worker_processes 1;
worker_rlimit_nofile 8192;
daemon off;
pid {folder}/pid;
error_log {folder}/log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/1;
  proxy_temp_path {folder}/2;
  fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4;
  scgi_temp_path {folder}/5;
  keepalive_requests 1000000000;
  upstream behind {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://behind;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True, kw_only=True)
class Nginx:
    """One that runs."""

    port: int
    pids: list[int]


@asynccontextmanager
async def nginx(tool: Tool, upstream: str) -> AsyncIterator[Nginx]:
    """Run it in front of *upstream*, `host:port`, while the block runs."""
    port = unused_port()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        configuration = Path(folder, "nginx.conf")
        text = _CONFIGURATION.format(folder=folder, upstream=upstream, port=port)
        configuration.write_text(text, encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *(str(tool.program), "-p", folder, "-c", str(configuration)),
            env={**os.environ, **tool.environment},
        )
        try:
            await _until_listening(port, process)
            yield Nginx(port=port, pids=descendants(process.pid))
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _until_listening(port: int, process: asyncio.subprocess.Process) -> None:
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    raise RuntimeError("nginx ended while starting")
