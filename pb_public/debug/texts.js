/**
 * The page's own sentences, German and English. What the server says comes in the language the
 * page asks for (`Accept-Language`).
 */

const TEXTS = {
  // key: [de, en]
  activityPermission: ["OpenCode fragt: {title}", "OpenCode asks: {title}"],
  adminUi: ["PocketBase-Verwaltung", "PocketBase admin"],
  answer: ["Antwort", "Answer"],
  answerEmpty: ["Hier erscheint die Antwort.", "The answer appears here."],
  brokeOff: [
    "Die Verbindung ist vor dem Ende der Antwort abgerissen",
    "The connection broke off before the end of the answer",
  ],
  cancelledBy: ["Abgebrochen ({by})", "Cancelled ({by})"],
  close: ["Schließen", "Close"],
  email: ["E-Mail", "Email"],
  events: ["Ereignisse", "Events"],
  factBytes: ["Bytes", "Bytes"],
  factCost: ["Kosten", "Cost"],
  factDuration: ["Dauer", "Duration"],
  factEvents: ["Ereignisse", "Events"],
  factFirstText: ["Erster Text nach", "First text after"],
  factModel: ["Modell", "Model"],
  factReason: ["Ende", "End"],
  factRequest: ["Anfrage", "Request"],
  factRun: ["Lauf", "Run"],
  factTokens: ["Token", "Tokens"],
  format: ["Format", "Format"],
  gap: [
    "Ereignisse {from} bis {to} konnten nicht aufbewahrt werden",
    "Events {from} to {to} could not be kept",
  ],
  health: ["Zustand", "Health"],
  key: ["Eigener API-Schlüssel", "Your own API key"],
  keyHint: [
    "Wird verschlüsselt gespeichert und nie wieder angezeigt.",
    "It is stored encrypted and never shown again.",
  ],
  keyNew: ["Neuer Schlüssel", "New key"],
  keyRemove: ["Entfernen", "Remove"],
  keySave: ["Speichern", "Save"],
  keySet: ["Hinterlegt, endet auf {last4}", "Set, ends in {last4}"],
  keyUnknown: ["…", "…"],
  keyUnset: ["Keiner hinterlegt", "None set"],
  language: ["Sprache", "Language"],
  login: ["Anmelden", "Sign in"],
  loginFailed: ["E-Mail oder Passwort ist falsch", "Wrong email or password"],
  logout: ["Abmelden", "Sign out"],
  model: ["Modell", "Model"],
  modelNeedsKey: ["braucht einen API-Schlüssel", "needs an API key"],
  modelNone: [
    "Kein Modell verfügbar: bitte einen eigenen API-Schlüssel hinterlegen oder den Betreiber fragen.",
    "No model available: please set your own API key or ask the operator.",
  ],
  modelDefault: ["Standard", "default"],
  network: [
    "Der Server ist nicht erreichbar; besteht eine Verbindung?",
    "The server can't be reached; are you online?",
  ],
  newText: ["neu", "new"],
  oldText: ["alt", "old"],
  password: ["Passwort", "Password"],
  permission: ["Rückfragen", "Questions"],
  permissionAsk: ["fragen", "ask"],
  permissionBy: ["{option} ({by})", "{option} ({by})"],
  permissionDefault: ["wie vom Betreiber gewählt", "as the operator chose"],
  permissionDenied: ["abgelehnt", "denied"],
  permissionDeny: ["immer ablehnen", "always deny"],
  plainText: ["Text", "Plain text"],
  plan: ["Plan", "Plan"],
  prompt: ["Prompt", "Prompt"],
  promptPlaceholder: ["Was soll OpenCode tun?", "What should OpenCode do?"],
  queueFull: ["voll", "full"],
  queueNumbers: [
    "{running} von {slots} laufen, {waiting} warten",
    "{running} of {slots} running, {waiting} waiting",
  ],
  reason: ["Grund: {reason}", "Reason: {reason}"],
  reconnecting: [
    "Die Verbindung ist abgerissen und wird wiederhergestellt …",
    "The connection broke off and is being restored …",
  ],
  run: ["Ausführen", "Run"],
  sessionExpired: [
    "Die Anmeldung gilt nicht mehr; bitte neu anmelden.",
    "You have been signed out; please sign in again.",
  ],
  shortcut: ["Strg + Enter", "Ctrl + Enter"],
  silent: [
    "Seit {seconds} s kein Lebenszeichen vom Server",
    "No sign of life from the server for {seconds} s",
  ],
  stop: ["Stopp", "Stop"],
  thoughts: ["Gedanken", "Thoughts"],
  toolInput: ["Eingabe", "Input"],
  toolOutput: ["Ausgabe", "Output"],
  tools: ["Werkzeuge", "Tools"],
  truncated: ["… ({count} Zeichen mehr)", "… ({count} more characters)"],
  unexpected: [
    "Unerwartete Antwort des Servers (Status {status})",
    "Unexpected answer from the server (status {status})",
  ],
  usageTokens: [
    "{input} ein, {output} aus ({cached} aus dem Cache, {reasoning} Nachdenken)",
    "{input} in, {output} out ({cached} cached, {reasoning} reasoning)",
  ],
  waitingForProvider: [
    "Der Anbieter ist beschäftigt ({reason}); Versuch {attempt}, nächster in {retry} s",
    "The provider is busy ({reason}); try {attempt}, next in {retry} s",
  ],

  // states of a run
  "state.idle": ["bereit", "ready"],
  "state.connecting": ["verbindet …", "connecting …"],
  "state.accepted": ["angenommen …", "accepted …"],
  "state.queued": ["wartet, Platz {position}", "queued, position {position}"],
  "state.running": ["läuft …", "running …"],
  "state.finished": ["fertig", "finished"],
  "state.failed": ["fehlgeschlagen", "failed"],
  "state.cancelled": ["abgebrochen", "cancelled"],
  "state.stopped": ["gestoppt", "stopped"],
  "state.lost": ["Verbindung verloren", "connection lost"],

  // states of a part
  "health.ok": ["in Ordnung", "ok"],
  "health.degraded": ["eingeschränkt", "degraded"],
  "health.down": ["ausgefallen", "down"],
  "health.unknown": ["unbekannt", "unknown"],
  "health.unreachable": ["nicht erreichbar", "unreachable"],
  "part.pocketbase": ["PocketBase", "PocketBase"],
  "part.runner": ["Runner", "Runner"],
  "part.opencode": ["OpenCode", "OpenCode"],
  "part.queue": ["Warteschlange", "Queue"],
};

const COLUMNS = { de: 0, en: 1 };
const STORED = "opencode_debug_language";

let language = chosen();

function chosen() {
  const stored = localStorage.getItem(STORED);
  if (stored in COLUMNS) return stored;
  const wanted = navigator.languages.map((tag) => tag.toLowerCase().split("-")[0]);
  return wanted.find((tag) => tag in COLUMNS) ?? "en";
}

/** The language in use: `de` or `en`. */
export function currentLanguage() {
  return language;
}

/** Use *wanted* from now on, here and at the next visit. */
export function setLanguage(wanted) {
  language = wanted in COLUMNS ? wanted : "en";
  localStorage.setItem(STORED, language);
}

/** The sentence *key*, its `{placeholders}` filled from *params*. */
export function text(key, params = {}) {
  const sentence = TEXTS[key]?.[COLUMNS[language]] ?? key;
  return sentence.replace(/\{(\w+)\}/g, (_, name) => String(params[name] ?? "?"));
}

/** Whether there is a sentence *key*. */
export function hasText(key) {
  return Object.hasOwn(TEXTS, key);
}

/** Put the language's sentences into everything below *root* that names one. */
export function translate(root = document) {
  document.documentElement.lang = language;
  for (const el of root.querySelectorAll("[data-text]")) el.textContent = text(el.dataset.text);
  for (const el of root.querySelectorAll("[data-label]")) {
    el.setAttribute("aria-label", text(el.dataset.label));
  }
  for (const el of root.querySelectorAll("[data-placeholder]")) {
    el.placeholder = text(el.dataset.placeholder);
  }
  for (const el of root.querySelectorAll("[data-empty]")) {
    el.dataset.emptyText = text(el.dataset.empty);
  }
}
