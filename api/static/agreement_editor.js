// The editor of an agreement: its file, and the numbers in it as fields beside it.
//
// A field changes its number where it stands in the text, so that comments and order stay. The route that checks a file
// says after each pause what it would change, what is wrong with it and on which line, and where its numbers stand now.
// baton.js saves the text.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const form = $("#draft");
const text = form.elements.file;
const PAUSE = 500;
const MARKS = { added: "+", removed: "−", changed: "~" };
let waits = 0;
let asked = 0;

// --- a number, in its place ------------------------------------------------------------------------------------------

$("#fields").addEventListener("input", (event) => {
  const input = event.target;
  if (!input.dataset.path || !input.validity.valid || !input.value) return;
  const [start, end] = [Number(input.dataset.start), Number(input.dataset.end)];
  text.setRangeText(input.value, start, end, "preserve");
  const grown = input.value.length - (end - start);
  input.dataset.end = end + grown;
  for (const other of $$("[data-path]")) if (Number(other.dataset.start) > start) {
    other.dataset.start = Number(other.dataset.start) + grown;
    other.dataset.end = Number(other.dataset.end) + grown;
  }
  soon();
});

text.addEventListener("input", () => {
  for (const input of $$("[data-path]")) input.disabled = true;  // where it stands is known again after the check
  soon();
});

// --- the check -------------------------------------------------------------------------------------------------------

function soon() {
  for (const old of $$(".problem[data-made]", form)) old.remove();  // what was refused is not what stands here now
  clearTimeout(waits);
  waits = setTimeout(check, PAUSE);
}

async function check() {
  const mine = ++asked;
  const sent = text.value;
  const against = form.dataset.against ? `?against=${form.dataset.against}` : "";
  say("Checking…");
  let answer;
  try {
    const headers = { Accept: "application/json", "Content-Type": "application/yaml" };
    const response = await fetch(`/api/agreements/check${against}`, { method: "POST", headers, body: sent, credentials: "same-origin" });
    answer = await response.json();
    if (mine !== asked || sent !== text.value) return;
    if (!response.ok) return tellErrors(answer);
  } catch {
    return mine === asked ? say("The server is out of reach; what you wrote is still here.") : undefined;
  }
  $("#problems").replaceChildren();
  $("#differences").replaceChildren(...answer.differences.map(difference));
  place(answer.numbers);
  say(answer.differences.length ? "" : answer.against ? "Nothing that binds is changed." : "The file has no errors.");
}

function say(words) {
  $("#status").textContent = words;
}

function tellErrors(problem) {
  const errors = problem.errors?.length ? problem.errors : [{ detail: problem.detail ?? "It cannot be read." }];
  $("#differences").replaceChildren();
  $("#problems").replaceChildren(...errors.map(mistake));
  say(errors.length === 1 ? "The file has an error." : `The file has ${errors.length} errors.`);
}

function mistake({ line, field, detail, suggestion }) {
  const item = document.createElement("li");
  item.className = "problem";
  if (line) {
    const go = document.createElement("button");
    [go.type, go.className, go.textContent] = ["button", "plain", `Line ${line}`];
    go.addEventListener("click", () => show(line));
    item.append(go, " ");
  }
  item.append(`${field ? `${field}: ` : ""}${detail}${suggestion ? `. Did you mean ${suggestion}?` : ""}`);
  return item;
}

function difference({ change, said }) {
  const item = document.createElement("li");
  const [mark, spoken] = [document.createElement("span"), document.createElement("span")];
  [item.className, mark.className, mark.textContent] = [change, "mark", MARKS[change]];
  mark.setAttribute("aria-hidden", "true");
  [spoken.className, spoken.textContent] = ["visually-hidden", `${change}: `];
  item.append(mark, spoken, said);
  return item;
}

function show(line) {
  const before = text.value.split("\n").slice(0, line - 1).join("\n").length;
  const start = line > 1 ? before + 1 : 0;
  const end = text.value.indexOf("\n", start);
  text.focus();
  text.setSelectionRange(start, end < 0 ? text.value.length : end);
  text.scrollTop = (line - 4) * parseFloat(getComputedStyle(text).lineHeight);
}

// fields are made anew only when there are other numbers: whoever is in one of them stays there
function place(numbers) {
  const known = $$("[data-path]");
  const same = known.length === numbers.length && numbers.every((one, at) => known[at].dataset.path === one.path && known[at].dataset.called === called(one));
  const inputs = same ? known : make(numbers);
  numbers.forEach(({ value, start, end }, at) => {
    inputs[at].disabled = false;
    if (inputs[at] !== document.activeElement) inputs[at].value = value;
    [inputs[at].dataset.start, inputs[at].dataset.end] = [start, end];
  });
}

function make(numbers) {
  const groups = new Map();
  const inputs = [];
  for (const one of numbers) {
    if (!groups.has(one.group)) {
      const [group, legend] = [document.createElement("fieldset"), document.createElement("legend")];
      legend.textContent = one.group;
      group.append(legend);
      groups.set(one.group, group);
    }
    const label = $(`#number-${one.kind}`).content.firstElementChild.cloneNode(true);
    const [words, input] = label.children;
    words.textContent = one.label.replaceAll("_", " ");
    if (one.hint) {
      const hint = document.createElement("span");
      [hint.className, hint.textContent] = ["quiet small-print", ` ${one.hint}`];
      words.append(hint);
    }
    [input.dataset.path, input.dataset.called] = [one.path, called(one)];
    groups.get(one.group).append(label);
    inputs.push(input);
  }
  $("#fields").replaceChildren(...groups.values());
  return inputs;
}

const called = ({ label, hint, kind }) => `${label} ${hint} ${kind}`;

// what saving refuses stands beside the text too, each with the way to its line
form.addEventListener("answered", ({ detail: { ok, body } }) => {
  if (!ok && body.errors?.some((error) => error.line)) tellErrors(body);
});

if (text.value !== text.defaultValue) check();  // a browser gave back what was written before a reload
else if (form.dataset.broken === undefined) place(JSON.parse($("#fields").dataset.numbers));
else check();
