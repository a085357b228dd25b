#!/usr/bin/python3 -I
"""An agent without the weight of OpenCode: real ACP, real model calls through the door.

For tests that need hundreds of runs. Leaves a daemon behind, as tools do.
"""

import http.client
import json
import os
import subprocess
import sys
import urllib.parse
from typing import Any


def main() -> None:
    """Answer ACP requests on stdin until it ends."""
    daemon = ["/bin/sh", "-c", "trap '' TERM HUP; while :; do sleep 100; done"]
    with open(os.devnull, "r+b") as nothing:  # noqa: PTH123
        subprocess.Popen(
            daemon, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )
    for line in sys.stdin:
        message = json.loads(line)
        match message.get("method"):
            case "initialize":
                tell(id=message["id"], result={"protocolVersion": 1})
            case "session/new":
                tell(id=message["id"], result={"sessionId": "session"})
            case "session/prompt":
                prompt = message["params"]["prompt"][0]["text"]
                if (failure := answer(prompt)) is None:
                    tell(id=message["id"], result={"stopReason": "end_turn"})
                else:
                    tell(id=message["id"], error={"code": -32603, "message": failure})
            case _ if "id" in message:  # choosing a model or a mode, closing a session
                tell(id=message["id"], result={})


def answer(prompt: str) -> "str | None":
    """Ask the model and tell its text piece by piece; return what went wrong."""
    config = json.loads(os.environ["OPENCODE_CONFIG_CONTENT"])
    provider, _, model = config["model"].partition("/")
    url = urllib.parse.urlsplit(config["provider"][provider]["options"]["baseURL"])
    body = {"model": model, "input": [{"role": "user", "content": prompt}], "stream": True}
    door = http.client.HTTPConnection(str(url.hostname), url.port)
    headers = {
        "Authorization": "Bearer " + os.environ["RUN_TOKEN"],
        "Content-Type": "application/json",
    }
    door.request("POST", url.path + "/responses", json.dumps(body), headers)
    response = door.getresponse()
    if response.status != http.HTTPStatus.OK:
        return f"refused with {response.status}"
    for line in response:
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            if event["type"] == "response.output_text.delta":
                say(event["delta"])
    return None


def say(text: str) -> None:
    """Tell a piece of the answer."""
    update = {
        "sessionUpdate": "agent_message_chunk",
        "content": {"type": "text", "text": text},
    }
    tell(method="session/update", params={"sessionId": "session", "update": update})


def tell(**message: Any) -> None:
    """Send a message."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
