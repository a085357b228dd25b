"""What an archive says about itself: its last member, so that a cut-off archive has none."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MANIFEST = "manifest.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Member(_Part):
    """One file in the archive."""

    path: str
    size: int
    sha256: str


class KeyUse(_Part):
    """One key that users' API keys are encrypted with; never the key itself."""

    name: str = Field(description="The setting it stands in.")
    fingerprint: str
    users: int = Field(description="How many users' API keys need it.")


class Manifest(_Part):
    """The archive's contents, and what they need to be of use."""

    format: Literal[1] = 1
    created_at: str = Field(description="ISO 8601, UTC.")
    version: str = Field(description="Of this project.")
    pocketbase_version: str
    migrations: list[str] = Field(description="Those applied to the database.")
    keys: list[KeyUse]
    unreadable_keys: int = Field(description="API keys that nobody could decrypt even then.")
    with_secrets: bool
    members: list[Member]
