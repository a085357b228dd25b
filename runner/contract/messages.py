"""The sentences people read, by stable code, in German and English.

A code is forever; its sentence may be reworded. Placeholders in braces are filled from an
error's `params`.
"""

from __future__ import annotations

from typing import NamedTuple


class _Sentence(NamedTuple):
    de: str
    en: str


_SENTENCES: dict[str, _Sentence] = {
    # the request
    "prompt-required": _Sentence("Prompt ist erforderlich", "A prompt is required"),
    "prompt-too-large": _Sentence(
        "Der Prompt ist größer als {limit_bytes} Bytes; bitte kürzen",
        "The prompt is larger than {limit_bytes} bytes; please shorten it",
    ),
    "body-too-large": _Sentence(
        "Die Anfrage ist größer als {limit_bytes} Bytes",
        "The request is larger than {limit_bytes} bytes",
    ),
    "malformed-json": _Sentence(
        "Die Anfrage ist kein gültiges JSON-Objekt", "The request is not a valid JSON object"
    ),
    "malformed-request": _Sentence(
        "Die Anfrage ist kein gültiges HTTP; Sonderzeichen in der Adresse bitte kodieren "
        "(curl: -G --data-urlencode)",
        "The request is not valid HTTP; please encode special characters in the address "
        "(curl: -G --data-urlencode)",
    ),
    "bad-request": _Sentence(
        "Die Anfrage ist nicht zu verstehen", "The request can't be understood"
    ),
    "unknown-field": _Sentence(
        "Unbekanntes Feld: {fields}. Erlaubt sind: {allowed}",
        "Unknown field: {fields}. Allowed are: {allowed}",
    ),
    "invalid-field": _Sentence("Ungültiges Feld: {fields}", "Invalid field: {fields}"),
    "event-unknown": _Sentence(
        "Der Lauf hat erst {known} Ereignisse, keines mit der Nummer {after}; bitte von vorn "
        "lesen, ohne Last-Event-ID und after",
        "The run has {known} events so far, none with the number {after}; please read from the "
        "start, without Last-Event-ID and after",
    ),
    "model-not-allowed": _Sentence(
        "Das Modell „{model}“ ist nicht erlaubt. Erlaubt sind: {allowed}",
        'The model "{model}" is not allowed. Allowed are: {allowed}',
    ),
    "session-not-found": _Sentence(
        "Diese Sitzung gibt es nicht; ohne session_id beginnt eine neue",
        "There is no such session; leave session_id out to begin a new one",
    ),
    "idempotency-conflict": _Sentence(
        "Dieser Idempotency-Key wurde schon für eine andere Anfrage verwendet",
        "This Idempotency-Key was used for another request before",
    ),
    "permission-resolved": _Sentence(
        "Diese Erlaubnis ist schon erteilt oder verweigert worden",
        "This permission has been granted or denied before",
    ),
    "not-found": _Sentence("Das gibt es hier nicht", "There is no such thing here"),
    "method-not-allowed": _Sentence(
        "Diese Methode gibt es hier nicht", "This method is not allowed here"
    ),
    "not-acceptable": _Sentence(
        "Dieses Format gibt es nicht. Möglich sind: {allowed}",
        "There is no such format. Possible are: {allowed}",
    ),
    "unsupported-media-type": _Sentence(
        "Bitte als application/json senden", "Please send application/json"
    ),
    # the caller
    "token-required": _Sentence(
        "Bitte anmelden: es fehlt ein PocketBase-Token",
        "Please sign in: a PocketBase token is missing",
    ),
    "token-invalid": _Sentence(
        "Das Token ist ungültig oder abgelaufen; bitte neu anmelden",
        "The token is invalid or has expired; please sign in again",
    ),
    "key-required": _Sentence(
        "Es ist kein API-Schlüssel hinterlegt; bitte einen eigenen hinterlegen oder den "
        "Betreiber fragen",
        "There is no API key; please set your own or ask the operator",
    ),
    "key-unreadable": _Sentence(
        "Der hinterlegte API-Schlüssel lässt sich nicht entschlüsseln; bitte neu hinterlegen",
        "The stored API key can't be decrypted; please set it again",
    ),
    "budget-spent": _Sentence("Das Budget ist aufgebraucht", "The budget is spent"),
    "too-many-requests": _Sentence(
        "Zu viele Anfragen; bitte kurz warten", "Too many requests; please wait a moment"
    ),
    # the parts
    "queue-full": _Sentence(
        "Alle Plätze sind belegt und die Warteschlange ist voll; bitte später noch einmal",
        "All slots are taken and the queue is full; please try again later",
    ),
    "pocketbase-unavailable": _Sentence(
        "PocketBase ist gerade nicht erreichbar; bitte gleich noch einmal",
        "PocketBase can't be reached right now; please try again shortly",
    ),
    "runner-unavailable": _Sentence(
        "Der Runner ist gerade nicht erreichbar; bitte gleich noch einmal",
        "The runner can't be reached right now; please try again shortly",
    ),
    "runner-restarting": _Sentence(
        "Der Runner wird gerade neu gestartet; bitte gleich noch einmal",
        "The runner is being restarted; please try again shortly",
    ),
    "contract-mismatch": _Sentence(
        "Gateway (Vertrag {gateway}) und Runner (Vertrag {runner}) passen nicht zusammen; der "
        "Betreiber muss beide auf denselben Stand bringen",
        "Gateway (contract {gateway}) and runner (contract {runner}) don't fit; the operator has "
        "to bring both to the same release",
    ),
    "opencode-unavailable": _Sentence(
        "OpenCode lässt sich auf dem Server nicht starten; bitte den Betreiber fragen",
        "OpenCode can't be started on the server; please ask the operator",
    ),
    "sandbox-unavailable": _Sentence(
        "Die Sandbox lässt sich auf dem Server nicht starten; bitte den Betreiber fragen",
        "The sandbox can't be started on the server; please ask the operator",
    ),
    "internal": _Sentence("Interner Fehler", "Internal error"),
    # the run
    "agent-crashed": _Sentence(
        "OpenCode ist unerwartet beendet worden", "OpenCode ended unexpectedly"
    ),
    "agent-error": _Sentence("OpenCode meldet einen Fehler: {reason}", "OpenCode failed: {reason}"),
    "agent-stalled": _Sentence(
        "OpenCode hat nicht rechtzeitig geantwortet", "OpenCode did not answer in time"
    ),
    "key-refused": _Sentence(
        "Der Anbieter lehnt den API-Schlüssel ab (Status {status})",
        "The provider refuses the API key (status {status})",
    ),
    "provider-busy": _Sentence(
        "Der Anbieter ist überlastet oder das Kontingent erschöpft (Status {status})",
        "The provider is overloaded or the quota is used up (status {status})",
    ),
    "provider-refused": _Sentence(
        "Der Anbieter lehnt die Anfrage ab (Status {status}): {reason}",
        "The provider refuses the request (status {status}): {reason}",
    ),
    "provider-error": _Sentence(
        "Der Anbieter hat einen Fehler (Status {status})",
        "The provider has an error (status {status})",
    ),
    "provider-unreachable": _Sentence(
        "Der Anbieter ist nicht erreichbar", "The provider can't be reached"
    ),
    "provider-timeout": _Sentence(
        "Der Anbieter hat nicht rechtzeitig geantwortet", "The provider did not answer in time"
    ),
    "provider-dropped": _Sentence(
        "Der Anbieter hat die Verbindung mitten in der Antwort getrennt",
        "The provider dropped the connection in the middle of the answer",
    ),
    "timeout": _Sentence(
        "Der Lauf hat länger als {limit_s} s gedauert", "The run took longer than {limit_s} s"
    ),
    "idle-timeout": _Sentence(
        "Der Lauf war länger als {limit_s} s still (gewartet wurde auf: {phase})",
        "The run was silent for more than {limit_s} s (waiting for: {phase})",
    ),
    "output-limit": _Sentence(
        "Der Lauf hat mehr als {limit_bytes} Bytes ausgegeben",
        "The run put out more than {limit_bytes} bytes",
    ),
    "out-of-memory": _Sentence(
        "Der Lauf hat mehr Speicher gebraucht als erlaubt ({limit_mb} MB)",
        "The run needed more memory than allowed ({limit_mb} MB)",
    ),
    "too-many-processes": _Sentence(
        "Der Lauf hat mehr Prozesse gestartet als erlaubt ({limit})",
        "The run started more processes than allowed ({limit})",
    ),
    "disk-full": _Sentence(
        "Der Lauf hat mehr Platz belegt als erlaubt ({limit_mb} MB)",
        "The run took more disk space than allowed ({limit_mb} MB)",
    ),
    "events-missing": _Sentence(
        "Hier fehlen {count} Ereignisse; sie ließen sich nicht aufbewahren",
        "{count} events are missing here; they could not be kept",
    ),
    "run-cancelled": _Sentence("Der Lauf wurde abgebrochen", "The run was cancelled"),
    "runner-restarted": _Sentence(
        "Der Runner ist während des Laufs neu gestartet worden",
        "The runner was restarted during the run",
    ),
}


class _Lenient(dict[str, object]):
    """Leaves out what an error did not tell, rather than failing while telling it."""

    def __missing__(self, _key: str) -> str:
        return "?"


def sentence(code: str, language: str, **params: object) -> str:
    """Return the sentence for *code* in *language* (`de` or `en`); English for others."""
    known = _SENTENCES.get(code, _SENTENCES["internal"])
    text = known.de if language == "de" else known.en
    return text.format_map(_Lenient(params))


def codes() -> list[str]:
    """Return every code that has a sentence."""
    return list(_SENTENCES)
