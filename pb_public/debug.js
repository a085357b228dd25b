/** The debug page: sign in, run a prompt, watch everything the gateway says about it. */

import PocketBase from "./vendor/pocketbase.es.mjs";
import { Failure, ask } from "./debug/api.js";
import { element } from "./debug/elements.js";
import { follow } from "./debug/follow.js";
import { askHealth, showHealth, watchHealth } from "./debug/health.js";
import { RunView } from "./debug/run_view.js";
import { currentLanguage, setLanguage, text, translate } from "./debug/texts.js";

const pb = new PocketBase("/", undefined, currentLanguage());
pb.autoCancellation(false);

const view = new RunView();
let running = null; // the run that is on: {controller, token, format, id, stopped}
let models = null; // the gateway's answer
let keyState = null; // the gateway's answer
let lastUser = ""; // whose run is on the page

// --- failures ---------------------------------------------------------------------------------

function showFailure(failure) {
  element("error-message").textContent = failure.message;
  element("error-detail").textContent = failure.detail;
  element("error-detail").hidden = failure.detail === "";
  element("error").hidden = false;
}

function clearFailure() {
  element("error").hidden = true;
}

/**
 * Run *work* with the token; tell of its failure, and sign out where the token is good no more.
 *
 * @param {(token: string) => Promise<void>} work
 */
async function guarded(work) {
  const token = pb.authStore.token;
  try {
    await work(token);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (token !== pb.authStore.token) return; // somebody else's by now
    if (error.status === 401) signOut(text("sessionExpired"));
    else showFailure(error);
  }
}

/** Get *path* for the person signed in; null where that is somebody else by now. */
async function load(path, token) {
  const response = await ask(path, { token });
  const body = await response.json();
  return token === pb.authStore.token ? body : null;
}

// --- signing in and out -----------------------------------------------------------------------

async function signIn() {
  clearFailure();
  const button = element("login");
  button.disabled = true;
  try {
    await pb
      .collection("users")
      .authWithPassword(element("email").value.trim(), element("password").value);
    element("password").value = "";
  } catch (error) {
    showFailure(signInFailure(error));
    element("password").focus();
  } finally {
    button.disabled = false;
  }
}

function signInFailure(error) {
  const { status = 0, response = {} } = error;
  if (status === 0) return new Failure(text("network"), { code: "network" });
  if (status === 400) return new Failure(text("loginFailed"), { status });
  return new Failure(response.error || response.message || text("unexpected", { status }), {
    status,
    code: response.code && typeof response.code === "string" ? response.code : "",
    requestId: response.request_id,
  });
}

function signOut(reason = "") {
  pb.authStore.clear();
  element("signed-out-reason").textContent = reason;
  element("signed-out-reason").hidden = reason === "";
}

/** Show the page of a person who is signed in, or the one of nobody. */
function showAuth() {
  const signedIn = pb.authStore.isValid;
  for (const id of ["work", "key", "whoami", "logout"]) element(id).hidden = !signedIn;
  element("signed-out").hidden = signedIn;
  element("whoami").textContent = signedIn
    ? pb.authStore.record?.name || pb.authStore.record?.email || ""
    : "";
  models = keyState = null;
  showModels();
  showKey();
  if (!signedIn) {
    dropRun();
    return;
  }
  if (pb.authStore.record?.id !== lastUser) forgetRun();
  lastUser = pb.authStore.record?.id ?? "";
  element("signed-out-reason").hidden = true;
  clearFailure();
  loadModels();
  loadKey();
}

/** What one person asked is not for the next one. */
function forgetRun() {
  dropRun();
  element("prompt").value = "";
  element("key-input").value = "";
  view.clear();
}

// --- models -----------------------------------------------------------------------------------

const loadModels = () =>
  guarded(async (token) => {
    models = await load("/opencode/models", token);
    showModels();
  });

function showModels() {
  const select = element("model");
  const before = select.value;
  const offered = models?.models ?? [];
  select.replaceChildren(
    ...offered.map(({ id, name }) => {
      const standard = id === models.default ? ` (${text("modelDefault")})` : "";
      return new Option(`${name || id}${standard}`, id);
    }),
  );
  const wanted = [before, models?.default].find((id) => offered.some((model) => model.id === id));
  if (wanted) select.value = wanted;
  showModelNote();
}

function showModelNote() {
  const model = models?.models?.find(({ id }) => id === element("model").value);
  const none = models && !models.models?.length;
  const words = model ? [model.id, model.note, model.needs_key ? text("modelNeedsKey") : ""] : [];
  const note = none ? text("modelNone") : words.filter(Boolean).join(" · ");
  element("model-note").textContent = note;
  element("model-note").hidden = note === "";
}

// --- the user's own key -----------------------------------------------------------------------

const loadKey = () =>
  guarded(async (token) => {
    keyState = await load("/opencode/key", token);
    showKey();
  });

const changeKey = (options) =>
  guarded(async (token) => {
    clearFailure();
    await ask("/opencode/key", { token, ...options });
    element("key-input").value = "";
    await Promise.all([loadKey(), loadModels()]);
  });

function showKey() {
  const state = element("key-state");
  state.dataset.set = keyState ? String(Boolean(keyState.set)) : "";
  if (!keyState) state.textContent = text("keyUnknown");
  else state.textContent = keyState.set ? text("keySet", keyState) : text("keyUnset");
  element("key-remove").disabled = !keyState?.set;
}

// --- a run ------------------------------------------------------------------------------------

const STOP_MS = 5000; // until the run's own word about its end has to be here
const CANCELLED = { type: "run.cancelled", by: "user" };
const CURRENT_RUN = "opencode_debug_run"; // where the page remembers it across a reload

/** Run the prompt, or go on reading the run *id*. */
async function run(id = null) {
  if (running) return;
  const controller = new AbortController();
  const current = { controller, format: element("format").value, id, stopped: false };
  running = current;
  clearFailure();
  setRunning(true);
  view.begin();
  const clock = setInterval(() => view.refresh(), 1000);
  try {
    await guarded(async (token) => {
      current.token = token;
      await stream(current);
    });
  } catch (error) {
    if (!controller.signal.aborted) throw error;
  } finally {
    clearInterval(clock);
    view.end(current.stopped || controller.signal.aborted ? "stopped" : "failed");
    sessionStorage.removeItem(CURRENT_RUN);
    running = null;
    setRunning(false);
    askHealth();
  }
}

async function stream(current) {
  const { token, format, controller } = current;
  const { signal } = controller;
  const response = await (current.id
    ? ask(`/opencode/runs/${current.id}/events`, { token, accept: format, signal })
    : ask("/opencode/stream", { method: "POST", token, accept: format, body: wanted(), signal }));
  current.id = response.headers.get("X-Run-ID");
  const requestId = response.headers.get("X-Request-ID");
  view.accepted({ runId: current.id, requestId });
  remember(current.id);
  await follow(response, {
    token,
    format,
    signal,
    onCut: () => view.cut(),
    take: (batch) => {
      if (current.stopped) batch.events.forEach(cancelledByUs);
      view.take(batch);
      return view.ended;
    },
  });
  if (current.stopped) return;
  if (!view.ended) {
    view.end("lost");
    throw new Failure(text("brokeOff"), { code: "network", requestId });
  }
  if (view.failure) throw new Failure(view.failure.message, { code: view.failure.code, requestId });
}

/** Plain text has one word for all bad ends; this one is what was wanted. */
function cancelledByUs(event) {
  if (event.type === "run.failed" && !event.code) Object.assign(event, CANCELLED);
}

function wanted() {
  const body = { prompt: element("prompt").value };
  for (const field of ["model", "permission"]) {
    if (element(field).value) body[field] = element(field).value;
  }
  return body;
}

/** End the run; its stream tells when it has ended. */
async function stopRun() {
  const current = running;
  if (!current || current.stopped) return;
  current.stopped = true;
  element("stop").disabled = true;
  if (current.id) {
    const signal = AbortSignal.timeout(STOP_MS);
    const options = { method: "DELETE", token: current.token, signal };
    setTimeout(() => current.controller.abort(), STOP_MS);
    await ask(`/opencode/runs/${current.id}`, options).catch(() => current.controller.abort());
  } else {
    current.controller.abort();
  }
}

/** Leave the run behind at once, and have it end. */
function dropRun() {
  const current = running;
  stopRun();
  current?.controller.abort();
}

view.onAnswer = (permissionId, option) =>
  guarded((token) =>
    ask(`/opencode/runs/${running?.id}/permissions/${encodeURIComponent(permissionId)}`, {
      method: "POST",
      token,
      body: { option },
    }),
  );

function remember(id) {
  if (id) sessionStorage.setItem(CURRENT_RUN, JSON.stringify({ id, user: lastUser }));
}

/** After a reload of the page: go on with the run that was on it. */
function reattach() {
  const { id, user } = JSON.parse(sessionStorage.getItem(CURRENT_RUN) ?? "{}");
  if (id && user === lastUser && pb.authStore.isValid) run(id);
}

/** Switch between *Run* and *Stop*, and keep the keyboard where it is useful. */
function setRunning(on) {
  const focused = document.activeElement;
  element("run").disabled = on;
  element("stop").disabled = !on;
  if (on && focused === element("run")) element("stop").focus({ preventScroll: true });
  if (!on && focused === element("stop")) element("run").focus({ preventScroll: true });
}

// --- wiring -----------------------------------------------------------------------------------

function showLanguage() {
  pb.lang = currentLanguage();
  element("language").value = currentLanguage();
  translate();
  showHealth();
  showModels();
  showKey();
  view.refresh();
}

function onSubmit(form, action) {
  element(form).addEventListener("submit", (event) => {
    event.preventDefault();
    action();
  });
}

onSubmit("login-form", signIn);
onSubmit("run-form", () => run());
onSubmit("key-form", () =>
  changeKey({ method: "PUT", body: { api_key: element("key-input").value.trim() } }),
);
element("key-remove").addEventListener("click", () => changeKey({ method: "DELETE" }));
element("logout").addEventListener("click", () => {
  signOut();
  forgetRun();
  clearFailure();
});
element("stop").addEventListener("click", stopRun);
element("model").addEventListener("change", showModelNote);
element("error-close").addEventListener("click", clearFailure);
element("raw").addEventListener("toggle", () => view.showRaw());
element("language").addEventListener("change", (event) => {
  setLanguage(event.target.value);
  showLanguage();
});
element("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    element("run-form").requestSubmit();
  }
});

pb.authStore.onChange(showAuth); // here, or in another tab
showLanguage();
showAuth();
reattach();
watchHealth();
