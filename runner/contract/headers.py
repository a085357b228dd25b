"""Header names both services use, in one place."""

from __future__ import annotations

REQUEST_ID = "X-Request-ID"
RUN_ID = "X-Run-ID"
SUBJECT = "X-Subject"
CONTRACT = "X-Runner-Contract"
NDJSON = "application/x-ndjson"
PROBLEM_JSON = "application/problem+json"
