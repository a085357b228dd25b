"""A light agent in OpenCode's place: a real process that speaks real ACP.

It asks the model that its session was given, at the door it was given, and tells each piece as
it comes. It boots in a moment, so that pools can be filled and two hundred can run at once.
Written for the standard library alone: `install` makes a program of it.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

_PATHS = {"@ai-sdk/openai": "/responses", "@ai-sdk/openai-compatible": "/chat/completions"}


def install(directory: Path) -> Path:
    """Write the agent as a program into *directory* and return it: for `OPENCODE_BIN`."""
    program = directory / "scripted-agent"
    source = Path(__file__).read_text(encoding="utf-8")
    program.write_text(f"#!{sys.executable} -IS\n{source}", encoding="utf-8")
    program.chmod(0o755)
    return program


def main() -> None:
    """Answer what comes on stdin, one message a line, until it ends."""
    config = json.loads(os.environ["OPENCODE_CONFIG_CONTENT"])
    models: dict[str, str] = {}
    for line in sys.stdin:
        message = json.loads(line)
        number, method, params = message.get("id"), message.get("method"), message.get("params", {})
        if number is None:
            continue
        result: dict[str, object] = {}
        if method == "initialize":
            result = {"protocolVersion": 1, "agentCapabilities": {}}
        elif method == "session/new":
            session = f"ses_{os.getpid()}_{len(models)}"
            models[session] = config["model"]
            result = {"sessionId": session}
        elif method == "session/set_config_option":
            if params["configId"] == "model":
                models[params["sessionId"]] = params["value"]
        elif method == "session/prompt":
            result = _prompt(config, models[params["sessionId"]], params)
        _say({"id": number, "result": result})


def _prompt(config: dict, model: str, params: dict) -> dict[str, object]:  # type: ignore[type-arg]
    provider = config["provider"][model.partition("/")[0]]
    path = _PATHS[provider["npm"]]
    url = urlsplit(provider["options"]["baseURL"])
    connection = http.client.HTTPConnection(url.hostname or "", url.port)
    text = "".join(block["text"] for block in params["prompt"])
    said = [{"role": "user", "content": text}]
    body = {"model": model.partition("/")[2], "stream": True, "messages": said, "input": said}
    headers = {
        "Authorization": f"Bearer {os.environ['RUN_TOKEN']}",
        "Content-Type": "application/json",
    }
    connection.request("POST", url.path + path, json.dumps(body), headers)
    response = connection.getresponse()
    while line := response.readline():
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        piece = event.get("delta") if "type" in event else _chat_piece(event)
        if isinstance(piece, str) and piece:
            update = {
                "sessionUpdate": "agent_message_chunk",
                "content": {"type": "text", "text": piece},
            }
            told = {"sessionId": params["sessionId"], "update": update}
            _say({"method": "session/update", "params": told})
    connection.close()
    return {"stopReason": "end_turn"}


def _chat_piece(event: dict) -> object:  # type: ignore[type-arg]
    choices = event.get("choices") or [{}]
    return choices[0].get("delta", {}).get("content")


def _say(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
