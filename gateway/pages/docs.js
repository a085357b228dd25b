/**
 * The API, shown and tried: built from `/opencode/openapi.json`, with nothing from elsewhere.
 *
 * Answers are untrusted: they go into the page as text and nothing else.
 */

const element = (id) => document.getElementById(id);

function make(tag, { text = "", className = "", ...attributes } = {}, ...children) {
  const el = document.createElement(tag);
  if (text) el.textContent = text;
  if (className) el.className = className;
  for (const [name, value] of Object.entries(attributes)) el.setAttribute(name, value);
  el.append(...children);
  return el;
}

// --- signing in -------------------------------------------------------------------------------

async function signIn(event) {
  event.preventDefault();
  const said = element("signed-in");
  const response = await fetch("/api/collections/users/auth-with-password", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    credentials: "omit",
    body: JSON.stringify({ identity: element("email").value, password: element("password").value }),
  }).catch(() => null);
  const body = response?.ok ? await response.json() : null;
  element("password").value = "";
  if (body) element("token").value = body.token;
  said.textContent = body ? `Signed in as ${body.record.name || body.record.email}` : "Not signed in";
}

// --- one operation ----------------------------------------------------------------------------

/** An example of what *schema* allows, to start from. */
function example(schema, api) {
  if (schema.$ref) return example(api.components.schemas[schema.$ref.split("/").pop()], api);
  if (schema.properties) {
    return Object.fromEntries(
      Object.entries(schema.properties)
        .filter(([name, part], at) => at === 0 || (schema.required ?? []).includes(name))
        .map(([name, part]) => [name, example(part, api)]),
    );
  }
  return schema.default ?? schema.enum?.[0] ?? (schema.type === "integer" ? 0 : "");
}

function parameterField({ name, in: place, schema, description = "" }) {
  const input = schema.enum
    ? make("select", {}, new Option(""), ...schema.enum.map((value) => new Option(value)))
    : make("input", { type: schema.type === "integer" ? "number" : "text", spellcheck: "false" });
  input.dataset.name = name;
  input.dataset.place = place;
  if (schema.default !== undefined) input.placeholder = String(schema.default);
  const label = make("label", { text: `${name} (${place})` }, input);
  if (description) label.append(make("span", { className: "hint", text: description }));
  return label;
}

function formOf(method, path, shared, operation, api) {
  const form = make("form");
  for (const parameter of [...shared, ...(operation.parameters ?? [])]) {
    form.append(parameterField(parameter));
  }
  const body = operation.requestBody?.content["application/json"];
  let area = null;
  if (body) {
    area = make("textarea", { spellcheck: "false" });
    area.value = JSON.stringify(example(body.schema, api), null, 2);
    form.append(make("label", { text: "body (JSON)", className: "wide" }, area));
  }
  const formats = Object.keys(operation.responses["200"]?.content ?? {});
  let format = null;
  if (formats.length > 1) {
    format = make("select", {}, ...formats.map((name) => new Option(name)));
    form.append(make("label", { text: "Accept" }, format));
  }
  const send = make("button", { text: "Send" });
  const stop = make("button", { text: "Stop", type: "button" });
  stop.disabled = true;
  const output = make("pre", { tabindex: "0", "aria-live": "polite" });
  output.hidden = true;
  form.append(send, stop);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const controller = new AbortController();
    stop.onclick = () => controller.abort();
    [send.disabled, stop.disabled, output.hidden] = [true, false, false];
    try {
      const request = requestOf(form, path, area, format);
      await show(method, request, output, controller.signal);
    } finally {
      [send.disabled, stop.disabled] = [false, true];
    }
  });
  return [form, output];
}

function requestOf(form, path, area, format) {
  const headers = {};
  const query = new URLSearchParams();
  let target = path;
  for (const field of form.querySelectorAll("[data-name]")) {
    const { name, place } = field.dataset;
    if (place === "path") target = target.replace(`{${name}}`, encodeURIComponent(field.value));
    else if (field.value === "") continue;
    else if (place === "query") query.set(name, field.value);
    else headers[name] = field.value;
  }
  const token = element("token").value.trim();
  if (token) headers.Authorization = `Bearer ${token}`;
  if (format) headers.Accept = format.value;
  if (area) headers["Content-Type"] = "application/json";
  const search = query.size ? `?${query}` : "";
  return { url: target + search, headers, body: area?.value };
}

async function show(method, { url, headers, body }, output, signal) {
  output.textContent = `${method} ${url}\n…`;
  try {
    const options = { method, headers, body, signal, credentials: "omit", cache: "no-store" };
    const response = await fetch(url, options);
    const head = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    output.textContent = `${response.status} ${response.statusText}\n${head}\n\n`;
    const decoder = new TextDecoder();
    const json = /json$/.test(response.headers.get("Content-Type")?.split(";")[0] ?? "");
    if (json && !/x-ndjson/.test(response.headers.get("Content-Type"))) {
      output.append(JSON.stringify(await response.json(), null, 2));
      return;
    }
    const reader = response.body?.getReader();
    for (;;) {
      const { done, value } = (await reader?.read()) ?? { done: true };
      if (done) return;
      output.append(decoder.decode(value, { stream: true }));
      output.scrollTop = output.scrollHeight;
    }
  } catch (error) {
    output.append(signal.aborted ? "\n(stopped)" : `\n(${error.name}: the connection broke)`);
  }
}

// --- the page ---------------------------------------------------------------------------------

function operationOf(method, path, shared, operation, api) {
  const responses = Object.entries(operation.responses).map(([status, { description }]) =>
    make("tr", {}, make("td", { text: status }), make("td", { text: description })),
  );
  return make(
    "details",
    { id: operation.operationId },
    make(
      "summary",
      {},
      make("span", { className: "method", text: method }),
      make("span", { className: "path", text: path }),
      operation.summary,
      operation.security.length ? "" : " (no token)",
    ),
    ...formOf(method, path, shared, operation, api),
    make("table", {}, make("tbody", {}, ...responses)),
  );
}

async function load() {
  const api = await (await fetch("/opencode/openapi.json")).json();
  element("title").textContent = `${api.info.title} ${api.info.version} · API`;
  element("description").textContent = api.info.description;
  for (const [path, { parameters = [], ...operations }] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      element("operations").append(
        operationOf(method.toUpperCase(), path, parameters, operation, api),
      );
    }
  }
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    element("schemas").append(
      make(
        "details",
        {},
        make("summary", { text: name }),
        make("pre", { text: JSON.stringify(schema, null, 2) }),
      ),
    );
  }
  element("operations").removeAttribute("aria-busy");
}

element("sign-in").addEventListener("submit", signIn);
load();
