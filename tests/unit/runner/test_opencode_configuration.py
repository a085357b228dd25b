"""What OpenCode is told, before anybody knows which run it will serve."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from runner.agents.history import forget_session
from runner.agents.opencode import AgentModel, configuration, environment, fingerprint
from runner.sandbox.base import Inside

if TYPE_CHECKING:
    from pathlib import Path

MODELS = (
    AgentModel(provider="openai", name="large", api="responses"),
    AgentModel(provider="openai", name="small", api="responses"),
    AgentModel(provider="local", name="tiny", api="chat", chat_only=True),
)


def test_all_models_are_there_and_no_other_provider() -> None:
    """Each provider with its own dialect and its models; the first model is the default."""
    config = configuration(MODELS, base_url="http://127.0.0.1:1/v1")

    assert config["enabled_providers"] == ["openai", "local"]
    assert config["model"] == "openai/large"
    assert config["provider"]["openai"]["whitelist"] == ["large", "small"]
    assert config["provider"]["openai"]["npm"] == "@ai-sdk/openai"
    assert config["provider"]["local"]["npm"] == "@ai-sdk/openai-compatible"
    assert config["provider"]["local"]["models"]["tiny"]["tool_call"] is False
    assert "tool_call" not in config["provider"]["openai"]["models"]["small"]


def test_each_model_has_its_mode() -> None:
    """A model for chat gets no tools; its mode is one that the configuration has."""
    config = configuration(MODELS, base_url="http://127.0.0.1:1/v1")

    assert [model.mode for model in MODELS] == ["build", "build", "chat"]
    assert config["agent"]["chat"]["tools"] == {"*": False}


def test_its_engine_knows_the_sandboxes_limit_not_the_hosts_memory(tmp_path: Path) -> None:
    """Else it collects its garbage as if it had all of it."""
    inside = Inside(home=tmp_path, workspace=tmp_path, tmp=tmp_path, door_url="http://127.0.0.1:1")

    told = environment(
        inside, MODELS, token="t", server_password="p", base_path="/v1", memory_bytes=1 << 30
    )

    assert told["BUN_JSC_forceRAMSize"] == str(1 << 30)


def test_a_replaced_binary_has_another_fingerprint(tmp_path: Path) -> None:
    """Even one of the same size."""
    binary, other = tmp_path / "opencode", tmp_path / "other"
    binary.write_text("1", encoding="utf-8")
    before = fingerprint(binary)
    assert fingerprint(binary) == before

    other.write_text("2", encoding="utf-8")
    other.replace(binary)

    assert fingerprint(binary) != before


def test_a_forgotten_session_is_out_of_the_history(tmp_path: Path) -> None:
    """With its messages and events; others stay, and where there is no history nothing is done."""
    assert forget_session(tmp_path, "a")
    path = tmp_path / ".local/share/opencode/opencode.db"
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE session (id TEXT PRIMARY KEY)")
        database.execute(
            "CREATE TABLE message (s TEXT REFERENCES session (id) ON DELETE CASCADE, text TEXT)"
        )
        database.execute("CREATE TABLE event_sequence (aggregate_id TEXT PRIMARY KEY)")
        for name in ("a", "b"):
            database.execute("INSERT INTO session VALUES (?)", (name,))
            database.execute("INSERT INTO message VALUES (?, 'x')", (name,))
            database.execute("INSERT INTO event_sequence VALUES (?)", (name,))

    assert forget_session(tmp_path, "a")

    with closing(sqlite3.connect(path)) as database:
        for query in (
            "SELECT id FROM session",
            "SELECT s FROM message",
            "SELECT aggregate_id FROM event_sequence",
        ):
            assert database.execute(query).fetchall() == [("b",)]


def test_a_history_of_another_shape_is_told(tmp_path: Path) -> None:
    """Another OpenCode may keep it elsewhere: then the caller has to know."""
    path = tmp_path / ".local/share/opencode/opencode.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database at all, but long enough to be looked at" * 20)

    assert not forget_session(tmp_path, "a")
