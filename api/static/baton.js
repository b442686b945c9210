// What pages do beyond reading: forms that call the JSON API, live changes, countdowns, the keyboard.
//
// A form with data-api="METHOD /path" sends its fields as JSON (data-body="text" sends its one text as it is,
// data-body="file" as an upload). The answer's errors are shown beside the fields that they name; a refusal says why.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const clockIsOff = Date.parse($("#content")?.dataset.now ?? "") - Date.now() || 0;
const PATIENT_WITH = new Set([502, 503, 504]);

// --- forms -----------------------------------------------------------------------------------------------------------

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-api]");
  if (!form) return;
  event.preventDefault();
  send(form, event.submitter);
});

// an address that somebody may pass on says what is asked for, and not what is not
document.addEventListener("submit", (event) => {
  if (event.target.getAttribute("method") !== "get") return;
  const blank = [...event.target.elements].filter((one) => one.name && !one.value && !one.disabled);
  for (const one of blank) one.disabled = true;
  setTimeout(() => { for (const one of blank) one.disabled = false; });
});

const looking = new WeakSet();  // forms of which a script, and no person, asks something
const pressed = new WeakMap();  // the button that a person pressed meanwhile: it waits for the answer

async function send(form, button) {
  if (form.getAttribute("aria-busy") === "true") {
    if (button && looking.has(form)) pressed.set(form, button);
    return;
  }
  if (form.dataset.sure && !confirm(filled(form.dataset.sure, form))) return;
  const dialog = form.closest("dialog");
  const row = document.getElementById(dialog?.dataset.about ?? form.closest("[data-row]")?.id ?? "");
  clearProblems(form);
  let request;
  try {
    request = requestOf(form, button);
  } catch (error) {
    return showProblem(form, { detail: error.message, errors: [] });
  }
  busy(true, form, row);
  if (!button) looking.add(form);
  const answer = await ask(request);
  looking.delete(form);
  busy(false, form, row);
  const next = pressed.get(form);
  pressed.delete(form);
  form.dispatchEvent(new CustomEvent("answered", { detail: answer }));
  if (!answer.ok) {
    showProblem(form, answer.body);
    if (answer.status === 409) look();
    return;
  }
  if (next) return queueMicrotask(() => send(form, next));
  if (dialog) dialog.close();
  const said = form.dataset.said && filled(form.dataset.said, form, answer.body);
  const then = filled(button?.dataset.then ?? form.dataset.then ?? "stay", form, answer.body);
  if (form.dataset.shows) return showAnswer(form, answer.body);
  if (form.dataset.reset !== undefined) form.reset();
  if (then === "reload") return keepForNextPage(said), location.reload();
  if (then.startsWith("/")) return keepForNextPage(said), location.assign(then);
  lastSaid = said;
  if (said) toast(said, undoOf(form, answer.body));
  look();
}

function requestOf(form, button) {
  const [method, path] = filled(button?.dataset.api ?? form.dataset.api, form).split(" ");
  const headers = { Accept: "application/json" };
  if (method === "POST") headers["Idempotency-Key"] = key();
  let body;
  if (form.dataset.body === "file") body = new FormData(form, button);
  else if (form.dataset.body === "text") {
    body = $("textarea[name]", form).value;
    headers["Content-Type"] = "application/yaml";
  } else if (method !== "DELETE") {
    body = JSON.stringify(fieldsOf(form, button));
    headers["Content-Type"] = "application/json";
  }
  return { method, path, headers, body };
}

function fieldsOf(form, button) {
  const fields = {};
  for (const input of form.elements) {
    if (!input.name || input.disabled || input.type === "submit" || input.type === "button") continue;
    const value = valueOf(input, form);
    if (value !== undefined) put(fields, input.name, value);
  }
  if (button?.name) put(fields, button.name, button.value);
  if (button?.dataset.set) Object.assign(fields, JSON.parse(button.dataset.set));
  return fields;
}

function valueOf(input, form) {
  if (input.type === "radio") return input.checked ? input.value : undefined;
  if (input.type === "checkbox" && input.dataset.type !== "list") return input.checked;
  if (input.type === "checkbox") {
    const ticked = $$(`input[name="${input.name}"]:checked`, form).map((one) => one.value);
    return ticked.length || input.dataset.empty ? ticked : undefined;
  }
  const text = input.value.trim();
  if (!text) return input.dataset.empty === "null" ? null : input.dataset.empty === "list" ? [] : undefined;
  if (input.dataset.type === "list") return text.split(/[,\n]/).map((one) => one.trim()).filter(Boolean);
  if (input.dataset.type === "yes") return text === "true";
  if (input.dataset.type === "json") {
    try { return JSON.parse(text); } catch (error) { throw new Error(`${input.name}: is no JSON (${error.message})`); }
  }
  return input.type === "number" ? Number(text) : text;
}

function put(fields, name, value) {
  const parts = name.split(".");
  const last = parts.pop();
  let place = fields;
  for (const part of parts) place = place[part] ??= {};
  place[last] = value;
}

async function ask({ method, path, headers, body }) {
  for (let tries = 1; ; tries++) {
    try {
      const response = await fetch(path, { method, headers, body, credentials: "same-origin" });
      if (PATIENT_WITH.has(response.status) && tries < 4 && headers["Idempotency-Key"]) {
        if (tries === 1) toast("Baton is catching up; trying again…", null, "bad");
        await new Promise((wake) => setTimeout(wake, 1000 * Number(response.headers.get("Retry-After") ?? 1)));
        continue;
      }
      if (response.status === 401) location.assign(signIn());
      const text = await response.text();
      return { ok: response.ok, status: response.status, body: text ? JSON.parse(text) : {} };
    } catch (error) {
      if (tries >= 3) return { ok: false, status: 0, body: { detail: "The server is out of reach; nothing was changed that you do not see here." } };
      await new Promise((wake) => setTimeout(wake, 700 * tries));
    }
  }
}

function key() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function busy(is, ...places) {
  for (const place of places) if (place) is ? place.setAttribute("aria-busy", "true") : place.removeAttribute("aria-busy");
}

function clearProblems(form) {
  for (const old of $$(".problem[data-made]", form)) old.remove();
  for (const field of $$("[aria-invalid]", form)) { field.removeAttribute("aria-invalid"); field.removeAttribute("aria-describedby"); }
}

function showProblem(form, problem) {
  let placed = false;
  for (const error of problem.errors ?? []) {
    const field = form.elements[error.field] ?? form.elements[error.field?.split(".").slice(-1)[0]];
    const place = field instanceof RadioNodeList ? field[0] : field;
    if (!place || place.type === "hidden") continue;
    const line = error.line ? `Line ${error.line}: ` : "";
    const said = problemLine(line + error.detail + (error.suggestion ? ` Did you mean ${error.suggestion}?` : ""));
    said.id = `problem-${key().slice(0, 8)}`;
    place.after(said);
    place.setAttribute("aria-invalid", "true");
    place.setAttribute("aria-describedby", said.id);
    if (!placed) place.focus();
    placed = true;
  }
  if (placed) return;
  const missing = (problem.missing ?? []).filter((one) => !problem.detail?.includes(one));
  const located = (problem.errors ?? []).filter((error) => error.line).map((error) => `Line ${error.line}, ${error.field}: ${error.detail}`);
  const detail = located.length ? located.join("\n") : problem.detail ?? "It did not work.";
  const text = detail + (missing.length ? ` Still missing: ${missing.join(", ")}.` : "");
  if (form.closest("dialog") || form.dataset.inline !== undefined) {
    const said = problemLine(text);
    said.setAttribute("role", "alert");
    form.prepend(said);
  } else toast(text, null, "bad");
}

function problemLine(text) {
  const line = document.createElement("p");
  line.className = "problem";
  line.dataset.made = "";
  line.textContent = text;
  return line;
}

function showAnswer(form, body) {
  const place = $(form.dataset.shows);
  for (const part of $$("[data-answer]", place)) part.textContent = body[part.dataset.answer] ?? "";
  for (const { lead, detail } of body.items ?? []) {
    const outcome = document.getElementById(`outcome-${lead}`);
    if (outcome) outcome.textContent = detail ?? outcome.dataset.done;
  }
  place.hidden = false;
  place.scrollIntoView({ block: "nearest" });
}

// {name} in a text stands for the dialog's or form's data-name, else for that field of the answer
function filled(text, form, answer = {}) {
  const known = { ...answer, ...form.closest("dialog")?.dataset, ...form.dataset };
  return text.replace(/\{(\w+)\}/g, (_, name) => known[name] ?? "");
}

function undoOf(form, body) {
  if (!form.dataset.undo) return null;
  const [method, path, json] = filled(form.dataset.undo, form, body).split(/ (?=\S)/, 3);
  return { method, path, headers: { "Content-Type": "application/json", "Idempotency-Key": key() }, body: form.dataset.undoBody ? filled(form.dataset.undoBody, form, body) : json ?? "{}" };
}

// --- toasts ----------------------------------------------------------------------------------------------------------

function toast(text, undo = null, kind = "") {
  const box = document.createElement("div");
  box.className = `toast ${kind}`;
  const said = document.createElement("p");
  said.textContent = text;
  box.append(said);
  if (undo) {
    const button = document.createElement("button");
    button.className = "plain";
    button.textContent = "Undo";
    button.addEventListener("click", async () => {
      box.remove();
      const answer = await ask(undo);
      toast(answer.ok ? "Undone." : answer.body.detail, null, answer.ok ? "" : "bad");
      look();
    });
    box.append(button);
  } else {
    const close = document.createElement("button");
    close.className = "plain";
    close.textContent = "✕";
    close.setAttribute("aria-label", "Dismiss");
    close.addEventListener("click", () => box.remove());
    box.append(close);
  }
  $("#toasts").append(box);
  setTimeout(() => box.remove(), kind === "bad" ? 15000 : 10000);
}

function keepForNextPage(said) {
  if (said) sessionStorage.setItem("said", said);
}
const kept = sessionStorage.getItem("said");
if (kept) { sessionStorage.removeItem("said"); toast(kept); }

let lastSaid = null;

// --- live changes ----------------------------------------------------------------------------------------------------

function look() {
  document.body.dispatchEvent(new CustomEvent("moved"));
}

// a part that is asked for again: gone from our sight, signed out, merged, or away for a moment
document.addEventListener("htmx:before:response", (event) => {
  const { status, raw } = event.detail.ctx.response;
  if (status < 400 && !raw.redirected) return;
  event.preventDefault();
  if (raw.redirected) location.assign(new URL(raw.url).pathname === "/sign-in" ? signIn() : raw.url);
  else if (event.target.id === "live" && (status === 404 || status === 403)) {
    keepForNextPage(lastSaid ?? "It is not yours to see any more.");
    location.assign("/");
  }
});

function signIn() {
  return `/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`;
}

if (document.body.dataset.live && $("[data-hx-trigger*='moved'], [hx-trigger*='moved']")) {
  const live = new EventSource(document.body.dataset.live);
  live.addEventListener("changed", look);
  live.addEventListener("error", () => { document.body.dataset.offline = ""; });
  live.addEventListener("open", () => { delete document.body.dataset.offline; });
  addEventListener("pagehide", () => live.close());
}

// --- countdowns in business time -------------------------------------------------------------------------------------

function count() {
  const now = Date.now() + clockIsOff;
  for (const due of $$("[data-spans]")) {
    const spans = JSON.parse(due.dataset.spans);
    const left = spans.reduce((sum, [from, to]) => sum + Math.max(to - Math.max(from, now), 0), 0);
    const open = spans.some(([from, to]) => from <= now && now < to);
    if (left <= 0) { if (!due.classList.contains("over")) { due.className = "due over"; due.textContent = "overdue"; look(); } continue; }
    due.textContent = length(left / 1000);
    due.classList.toggle("soon", left < Number(due.dataset.soon ?? 1800) * 1000);
    due.classList.toggle("rests", !open);
  }
}

function length(seconds) {
  const [d, h, m, s] = [seconds / 86400, (seconds % 86400) / 3600, (seconds % 3600) / 60, seconds % 60].map(Math.floor);
  if (d) return h ? `${d} d ${h} h` : `${d} d`;
  if (h) return m ? `${h} h ${m} min` : `${h} h`;
  return m ? `${m} min ${String(s).padStart(2, "0")} s` : `${s} s`;
}
setInterval(count, 1000);

// --- dialogs ---------------------------------------------------------------------------------------------------------

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-open]");
  if (opener) { event.preventDefault(); open(opener); }
  const closer = event.target.closest("[data-close]");
  if (closer) closer.closest("dialog").close();
  const copier = event.target.closest("[data-copy]");
  if (copier) navigator.clipboard?.writeText($(copier.dataset.copy).textContent).then(() => toast("Copied."));
  if (event.target.matches?.("dialog")) {
    const box = event.target.getBoundingClientRect();
    const inside = event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
    if (!inside) event.target.close();
  }
  for (const menu of $$("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  const all = event.target.closest("input[data-all]");
  if (all) for (const one of $$(`input[name="${all.dataset.all}"]`)) one.checked = all.checked;
});

function open(opener) {
  const dialog = document.getElementById(opener.dataset.open);
  for (const form of $$("form[data-api]", dialog)) { form.reset(); clearProblems(form); }
  const { open: _open, key: _key, ...about } = opener.dataset;
  Object.assign(dialog.dataset, about, { about: opener.closest("[data-row]")?.id ?? "" });
  for (const place of $$("[data-fill]", dialog)) {
    const text = opener.dataset[place.dataset.fill] ?? "";
    if (place.matches("input, select, textarea")) place.value = text; else place.textContent = text;
    if (place.dataset.hideEmpty !== undefined) place.hidden = !text;
  }
  dialog.showModal();
  $("[autofocus]", dialog)?.focus();
}

// --- the keyboard ----------------------------------------------------------------------------------------------------

let selected = null;
let selectedAt = 0;
const rows = () => $$("[data-row]");

function select(row) {
  for (const other of rows()) other.setAttribute("aria-selected", String(other === row));
  selected = row?.id ?? null;
  selectedAt = rows().indexOf(row);
  row?.scrollIntoView({ block: "nearest" });
  $("a", row)?.focus();
}

document.addEventListener("htmx:after:swap", () => {
  const row = selected && document.getElementById(selected);
  if (row) row.setAttribute("aria-selected", "true");
  else if (selected) select(rows()[Math.min(selectedAt, rows().length - 1)]);  // it left the list: the next one is next
  count();
});

document.addEventListener("keydown", (event) => {
  const palette = $("#palette");
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k" && palette) {
    event.preventDefault();
    return palette.open ? palette.close() : open({ dataset: { open: "palette" }, closest: () => null });
  }
  if (palette?.open && ["ArrowDown", "ArrowUp"].includes(event.key)) return step(event, palette);
  const typing = event.target.matches?.("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.body.dataset.singleKeys === undefined) return;
  const dialog = $("dialog[open]");
  if (dialog) return press(event, dialog);
  const list = rows();
  const at = list.findIndex((row) => row.id === selected);
  if (event.key === "j" && list.length) { event.preventDefault(); select(list[Math.min(at + 1, list.length - 1)]); }
  else if (event.key === "k" && list.length) { event.preventDefault(); select(list[Math.max(at - 1, 0)]); }
  else if (event.key === "/" && palette) { event.preventDefault(); open({ dataset: { open: "palette" }, closest: () => null }); }
  else if (event.key === "?") open({ dataset: { open: "keys" }, closest: () => null });
  else press(event, list.length ? list[at] : $("#content"));
});

function press(event, place) {
  const button = place && $(`[data-key="${CSS.escape(event.key)}"]`, place);
  if (!button) return;
  event.preventDefault();
  button.click();
}

function step(event, palette) {
  event.preventDefault();
  const stops = [$("input", palette), ...$$(".found a", palette)];
  const at = stops.indexOf(document.activeElement);
  stops[(at + (event.key === "ArrowDown" ? 1 : stops.length - 1)) % stops.length]?.focus();
}

count();
