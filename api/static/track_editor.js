// The editor of a track: the same track as a form and as a file, and what saving it would change.
//
// The form is built from the track's JSON and read back into it; whatever no field of it can show exactly stands in it as
// JSON, so that nothing is lost. Both views are sent by baton.js, to the same route. From one view to the other leads the
// route that checks a file: it says what the track is as JSON and as YAML, or what is wrong with it.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const form = $("#as-form");
const yaml = $("#as-yaml");
const text = yaml.elements.file;
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?$/;
const OPERATORS = { "=": null, ">=": "at_least", "<=": "at_most" };

// --- values as people write them -------------------------------------------------------------------------------------

const scalar = (written) => {
  const word = written.trim();
  if (word === "true" || word === "false") return word === "true";
  if (NUMBER.test(word)) return Number(word);
  return /^".*"$/.test(word) && word.length > 1 ? JSON.parse(word) : word;
};
const plain = (value) => (typeof value === "string" && value !== "" && scalar(value) === value && !/[,"]/.test(value) ? value : JSON.stringify(value));
const parted = (written) => written.match(/"(?:[^"\\]|\\.)*"|[^,]+/g)?.map((one) => one.trim()).filter(Boolean).map(scalar) ?? [];
const same = (one, other) => JSON.stringify(sorted(one)) === JSON.stringify(sorted(other));
const sorted = (value) => Array.isArray(value) ? value.map(sorted) : value && typeof value === "object"
  ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, inner]) => [key, sorted(inner)])) : value;

function whereOf(lines) {
  const where = {};
  for (const line of lines.split("\n").filter((one) => one.trim())) {
    const [, name, operator, value] = line.match(/^\s*([^=<>]*?)\s*(>=|<=|=)\s*(.*)$/) ?? [];
    if (!name) throw new Error(`“${line.trim()}” is no property with its value, such as form = contact_sales`);
    if (OPERATORS[operator]) (where[name] ??= {})[OPERATORS[operator]] = scalar(value);
    else where[name] = scalar(value);
  }
  return where;
}
const whereLines = (where) => Object.entries(where).flatMap(([name, wanted]) => typeof wanted === "object"
  ? Object.entries(wanted).map(([bound, value]) => `${name} ${bound === "at_least" ? ">=" : "<="} ${value}`)
  : [`${name} = ${plain(wanted)}`]).join("\n");

// --- fields of the form ----------------------------------------------------------------------------------------------

const field = (name, root) => $(`[data-field="${name}"]`, root);

// a browser changes line ends and takes them out of single lines: what was not touched is given back as it came
function set(input, value) {
  input.value = value;
  input.came = value;
  input.shown = input.value;
}
const get = (input) => (input.came !== undefined && input.value === input.shown ? input.came : input.value);

function setDuration(name, value, root) {
  const [number, unit] = $(`[data-duration="${name}"]`, root).children;
  [number.value, unit.value] = [value.slice(0, -1), value.slice(-1)];
}
function getDuration(name, root) {
  const [number, unit] = $(`[data-duration="${name}"]`, root).children;
  return number.value + unit.value;
}

function showCase(root, which) {
  for (const part of root.children) if (part.dataset.case) {
    part.hidden = part.dataset.case !== which;
    part.toggleAttribute("inert", part.hidden);
    for (const input of $$("input, select, textarea", part)) input.disabled = Boolean(input.closest("[data-case][hidden]"));
  }
  for (const input of $$("input, select, textarea", root)) input.disabled = Boolean(input.closest("[data-case][hidden]"));
}

// --- criteria --------------------------------------------------------------------------------------------------------

const TESTS = ["in", "not_in", "equals", "at_least", "at_most", "between", "known", "like"];

function criterion(value, { maybe = false, part = false } = {}) {
  const box = $("#criterion").content.firstElementChild.cloneNode(true);
  const kind = $("[data-kind]", box);
  if (!maybe) $("[value=none]", kind).remove();
  $("[data-do=remove-part]", box).hidden = !part;
  let which = value ? kindOf(value) : maybe ? "none" : "event";
  if (value) {
    fill(box, which, value);
    kind.value = which;
    adder(box).hidden = which === "not";
    if (!reads(box, value)) {  // what no field can show exactly is shown as it is
      which = "json";
      $("[data-parts]", box).replaceChildren();
      set(field("json", box), JSON.stringify(value, null, 1));
    }
  }
  kind.value = which;
  showCase(box, which === "all" || which === "any" || which === "not" ? "parts" : which);
  return box;
}

const kindOf = (value) => ["all", "any", "not", "event"].find((key) => key in value) ?? "field";
const withDefaults = (value) => ("event" in value ? { where: {}, at_least: 1, ...value } : value);

function reads(box, value) {
  try { return same(withDefaults(criterionOf(box)), withDefaults(value)); } catch { return false; }
}

function fill(box, which, value) {
  if (which === "event") {
    set(field("event", box), value.event);
    for (const name of ["at_least", "within_days", "same"]) set(field(name, box), String(value[name] ?? ""));
    set(field("where", box), whereLines(value.where ?? {}));
  } else if (which === "field") {
    const test = TESTS.find((name) => name in value) ?? "in";
    set(field("field", box), value.field ?? "");
    field("test", box).value = test;
    set(field("value", box), [].concat(value[test] ?? []).map(plain).join(", "));
  } else {
    const parts = which === "not" ? [value.not] : value[which];
    $("[data-parts]", box).replaceChildren(...parts.map((one) => criterion(one, { part: which !== "not" })));
  }
}

function criterionOf(box) {
  const which = $(":scope > [data-kind]", box).value;
  const parts = () => [...$(":scope > [data-case=parts] > [data-parts]", box).children].map(criterionOf);
  switch (which) {
    case "none": return undefined;
    case "event": return eventOf(box);
    case "field": {
      const test = field("test", box).value;
      const values = parted(get(field("value", box)));
      const several = ["in", "not_in", "between"].includes(test);
      return { field: get(field("field", box)), [test]: several ? values : test === "like" ? String(values.length === 1 ? values[0] : get(field("value", box))) : values.length === 1 ? values[0] : get(field("value", box)) };
    }
    case "json": return JSON.parse(get(field("json", box)));
    case "not": return { not: parts()[0] };
    default: return { [which]: parts() };
  }
}

function eventOf(box) {
  const found = { event: get(field("event", box)), where: whereOf(get(field("where", box))) };
  for (const name of ["at_least", "within_days"]) if (get(field(name, box)).trim()) found[name] = Number(get(field(name, box)));
  if (get(field("same", box)).trim()) found.same = get(field("same", box));
  return found;
}

function setCriterion(place, value) {
  place.replaceChildren(criterion(value, { maybe: place.dataset.criterion === "maybe" }));
}
const adder = (box) => $(":scope > [data-case=parts] > [data-do=add-part]", box);
const getCriterion = (place) => criterionOf(place.firstElementChild);

// --- steps -----------------------------------------------------------------------------------------------------------

const WAYS = { branch: ["then", "else"], wait_for: ["then", "otherwise"] };
const TITLES = Object.fromEntries($$("[data-way=''] [data-kind]", form).map((button) => [button.dataset.kind, button.textContent]));
const FRESH = {
  email: { email: { subject: "", body: "" } },
  wait: { wait: "1d" },
  wait_for: { wait_for: { when: { event: "email_link_clicked" }, within: "5d" } },
  branch: { branch: { if: { field: "", in: [] } } },
  alert: { alert: "owner" },
  enroll: { enroll: "" },
};
const list = (way, root) => $(`:scope > [data-way="${way}"] > [data-steps]`, root);

function stepFrom(step) {
  const kind = Object.keys(FRESH).find((one) => one in step);
  const item = $(`#step-${kind}`).content.firstElementChild.cloneNode(true);
  const body = $(":scope > .fields", item);
  const value = step[kind];
  switch (kind) {
    case "email": for (const name of ["subject", "body"]) set(field(name, body), value[name]); break;
    case "wait": {
      const until = typeof value === "object";
      field("form", body).value = until ? "until" : "for";
      if (until) for (const name of ["weekday", "at"]) field(name, body).value = value[name] ?? "09:00";
      else setDuration("wait", value, body);
      showCase(body, until ? "until" : "for");
      break;
    }
    case "wait_for": case "branch": {
      setCriterion($("[data-criterion]", body), value.when ?? value.if);
      if (kind === "wait_for") setDuration("within", value.within, body);
      for (const way of WAYS[kind]) list(way, body).replaceChildren(...(value[way] ?? []).map(stepFrom));
      break;
    }
    default: field(kind, body).value = value;
  }
  return item;
}

function stepOf(item) {
  const kind = item.dataset.step;
  const body = $(":scope > .fields", item);
  switch (kind) {
    case "email": return { email: { subject: get(field("subject", body)), body: get(field("body", body)) } };
    case "wait": return { wait: field("form", body).value === "until" ? { weekday: field("weekday", body).value, at: field("at", body).value } : getDuration("wait", body) };
    case "wait_for": return { wait_for: { when: getCriterion($("[data-criterion]", body)), within: getDuration("within", body), ...ways(kind, body) } };
    case "branch": return { branch: { if: getCriterion($("[data-criterion]", body)), ...ways(kind, body) } };
    default: return { [kind]: field(kind, body).value };
  }
}

const ways = (kind, body) => Object.fromEntries(WAYS[kind].map((way) => [way, [...list(way, body).children].map(stepOf)]));

// --- the track -------------------------------------------------------------------------------------------------------

function build(track) {
  set(field("id", form), track.id);
  set(field("name", form), track.name);
  set(field("topic", form), track.topic ?? "marketing");
  for (const name of ["goal", "exit"]) setCriterion($("[data-criterion]", field(name, form)), track[name]);
  const { after = "1d", policy = "collapse" } = track.catch_up ?? {};
  setDuration("catch_up.after", after, form);
  field("catch_up.policy", form).value = policy;
  list("", form).replaceChildren(...track.steps.map(stepFrom));
  number();
}

function read() {
  const track = { id: get(field("id", form)).trim(), name: get(field("name", form)), topic: get(field("topic", form)).trim() };
  track.catch_up = { after: getDuration("catch_up.after", form), policy: field("catch_up.policy", form).value };
  for (const name of ["goal", "exit"]) {
    const value = getCriterion($("[data-criterion]", field(name, form)));
    if (value) track[name] = value;
  }
  track.steps = [...list("", form).children].map(stepOf);
  return track;
}

const written = () => JSON.stringify(read(), null, 1);

function number(steps = list("", form), prefix = "") {
  [...steps.children].forEach((item, at, all) => {
    item.dataset.path = `${prefix}${at}`;
    const title = $("h3", item);
    title.textContent = `${prefix.replaceAll(/\d+/g, (digits) => Number(digits) + 1).replaceAll(".", " ")}${at + 1} · ${TITLES[item.dataset.step]}`;
    for (const button of $$(":scope > .row [data-do]", item)) {
      button.setAttribute("aria-label", `${button.textContent}: ${title.textContent}`);
      button.disabled = (button.dataset.do === "up" && at === 0) || (button.dataset.do === "down" && at === all.length - 1);
    }
    const body = $(":scope > .fields", item);
    for (const way of WAYS[item.dataset.step] ?? []) number(list(way, body), `${prefix}${at}.${way}.`);
  });
}

// --- what the buttons do ---------------------------------------------------------------------------------------------

const DO = {
  up: (item) => item.previousElementSibling.before(item),
  down: (item) => item.nextElementSibling.after(item),
  remove: (item) => item.remove(),
};

document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-do], [data-view]");
  if (!button) return;
  if (button.dataset.view) return show(button.dataset.view);
  const what = button.dataset.do;
  if (what === "check") return check();
  if (what === "add") return addStep(button);
  if (what === "add-part") return $("input, select", button.previousElementSibling.appendChild(criterion(null, { part: true }))).focus();
  if (what === "remove-part") return removePart(button.closest(".criterion"));
  const item = button.closest("[data-step]");
  const steps = item.parentElement;
  const near = item.nextElementSibling ?? item.previousElementSibling;
  const title = $("h3", item).textContent;
  DO[what](item);
  number();
  if (what === "remove") (near ? $("h3", near) : $("summary", steps.parentElement)).focus();
  else (button.disabled ? $("h3", item) : button).focus();
  say(what === "remove" ? `Removed ${title}.` : `Moved: it is now ${$("h3", item).textContent}.`);
});

function addStep(button) {
  const steps = $(":scope > [data-steps]", button.closest("[data-way]"));
  const item = steps.appendChild(stepFrom(FRESH[button.dataset.kind]));
  button.closest("details").open = false;
  number();
  $("input, select, textarea", $(".fields", item))?.focus();
  say(`Added ${$("h3", item).textContent}.`);
}

function removePart(box) {
  const around = box.parentElement.closest(".criterion");
  box.remove();
  adder(around).focus();
}

form.addEventListener("change", ({ target }) => {
  if (target.dataset.switch !== undefined) showCase(target.closest(".fields"), target.value);
  if (target.dataset.kind === undefined || !target.matches("select")) return;
  const box = target.closest(".criterion");
  const group = ["all", "any", "not"].includes(target.value);
  const parts = $("[data-parts]", box);
  if (group && !parts.children.length) parts.append(criterion(null, { part: target.value !== "not" }));
  if (target.value === "not") while (parts.children.length > 1) parts.lastElementChild.remove();
  if (group) for (const part of parts.children) $(":scope > [data-do=remove-part]", part).hidden = target.value === "not";
  showCase(box, group ? "parts" : target.value);
  if (group) adder(box).hidden = target.value === "not";
});

function say(words) {
  $("#status").textContent = words;
}

// --- from one view to the other --------------------------------------------------------------------------------------

let view = "form";
let inForm;  // the form's track and the file's text when they last said the same
let inFile;

const kept = () => ({ form: safely(written), file: text.value });
function safely(work) {
  try { return work(); } catch { return null; }
}

async function ask(body) {
  const response = await fetch("/api/tracks/check", { method: "POST", body, credentials: "same-origin", headers: { Accept: "application/json", "Content-Type": "application/yaml" } });
  return { ok: response.ok, body: await response.json().catch(() => ({})) };
}

// returns what the view that is shown holds, checked; tells what is wrong, and returns nothing, if it cannot be taken
async function checked() {
  const place = view === "form" ? form : yaml;
  clear(place);
  let body;
  try {
    body = view === "form" ? written() : text.value;
  } catch (error) {
    return refuse(place, { detail: error.message });
  }
  const answer = await ask(body).catch(() => ({ body: { detail: "The server is out of reach." } }));
  return answer.ok ? answer.body.items : refuse(place, answer.body);
}

async function show(which) {
  if (which === view) return;
  const now = kept();
  if (view === "form" && now.form !== inForm) {
    const items = await checked();
    if (!items) return;
    text.value = items[0].yaml;
    say("Written anew from the form; comments of the file are not kept.");
  } else if (view === "yaml" && now.file !== inFile) {
    const items = await checked();
    if (!items) return;
    if (items.length !== 1) return say(`The file holds ${items.length} tracks; the form shows one. Save it as it is.`);
    build(items[0].track);
    say("");
  }
  view = which;
  ({ form: inForm, file: inFile } = kept());
  open(which);
}

function open(which) {
  form.hidden = which !== "form";
  yaml.hidden = which !== "yaml";
  $("#checked").hidden = true;
  for (const button of $$("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === which));
}

async function check() {
  const items = await checked();
  if (!items) return;
  const place = $("#checked");
  const lines = items.flatMap((one) => one.changes);
  $(".diff", place).replaceChildren(...lines.map(line));
  const leads = Number(form.dataset.leads);
  $("p", place).textContent = !lines.length ? "Nothing: no new version is made."
    : leads ? `It becomes version ${items[0].latest + 1}. ${leads.toLocaleString("en")} ${leads === 1 ? "lead that is on it keeps its" : "leads that are on it keep their"} version.` : `It becomes version ${items[0].latest + 1}.`;
  place.hidden = false;
  place.scrollIntoView({ block: "nearest" });
}

function line({ change, line: words }) {
  const item = document.createElement("li");
  const mark = document.createElement("span");
  mark.className = "mark";
  mark.textContent = { added: "+", removed: "−" }[change] ?? "";
  if (change !== "same") item.className = change;
  item.append(mark, change === "gap" ? "…" : words);
  return item;
}

// --- saving, and what is wrong ---------------------------------------------------------------------------------------

// before baton.js reads the form
form.addEventListener("submit", (event) => {
  clear(form);
  try {
    form.elements.file.value = written();
  } catch (error) {
    event.preventDefault();
    event.stopPropagation();
    refuse(form, { detail: error.message });
  }
});

for (const place of [form, yaml]) place.addEventListener("answered", ({ detail: { ok, body } }) => {
  if (!ok) return place === form && body.errors?.length ? locate(body) : undefined;
  const [one] = body.items;
  const before = Number(place.dataset.version);
  ({ form: inForm, file: inFile } = kept());
  leaving.abort();
  const leads = one.leads ? ` ${one.leads.toLocaleString("en")} on older versions keep theirs.` : "";
  place.dataset.said = one.version === before ? `Nothing changed: version ${before} stays.` : `Saved as version ${one.version}.${leads}`;
  place.dataset.then = one.version > 1 && one.version !== before ? `/tracks/${one.id}?against=${one.version - 1}` : `/tracks/${one.id}`;
});

// an error of the file stands beside the field of the form that it is about
function locate(problem) {
  for (const error of problem.errors) {
    const path = error.field.split(".").filter((part) => !["branch", "wait_for"].includes(part));
    if (path[0] !== "steps" && path[1] === "steps") path.shift();
    const step = path[0] === "steps" && $$("[data-step]", form).filter((item) => `${path.slice(1).join(".")}.`.startsWith(`${item.dataset.path}.`)).pop();
    const root = step ? $(":scope > .fields", step) : form;
    const names = path.slice(step ? 1 + step.dataset.path.split(".").length : 0);
    const input = names.map((name) => field(name, root)).filter(Boolean).pop() ?? (step ? field(error.part ?? "body", root) : null) ?? $("input, select", root);
    const target = input.matches("input, select, textarea") ? input : $("input:not([disabled]), select", input);
    target.name = error.field;
    if (!names.includes("email") || names.length > 1) delete error.line;
  }
}

function clear(place) {
  for (const named of $$("[data-field][name]", place)) named.removeAttribute("name");
  for (const old of $$(".problem[data-made]", place)) old.remove();
}

function refuse(place, problem) {
  clear(place);
  const errors = (problem.errors ?? []).map((error) => `${error.line && place === yaml ? `Line ${error.line}, ` : ""}${error.field}: ${error.detail}${error.suggestion ? `. Did you mean ${error.suggestion}?` : ""}`);
  const said = document.createElement("p");
  said.className = "problem pre";
  said.dataset.made = "";
  said.setAttribute("role", "alert");
  said.textContent = errors.length ? errors.join("\n") : problem.detail ?? "It did not work.";
  place.prepend(said);
  said.scrollIntoView({ block: "nearest" });
}

const others = new Set($$("#tracks option").map((option) => option.value));
field("id", form).addEventListener("input", ({ target }) => {
  target.setCustomValidity(form.dataset.version === "0" && others.has(target.value) ? "There is a track of that id already." : "");
});

const leaving = new AbortController();
addEventListener("beforeunload", (event) => {
  const now = kept();
  if (now.form !== inForm || now.file !== inFile) event.preventDefault();
}, { signal: leaving.signal });

build(JSON.parse(form.dataset.track));
({ form: inForm, file: inFile } = kept());
$("#views").hidden = false;
open("form");
