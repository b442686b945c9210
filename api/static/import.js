// The page that looks at a file before it is imported: it shows what the preview says of the file, and keeps what each
// column is to become. The look and the import are sent by baton.js, with the same file.

const $ = (selector, root = document) => root.querySelector(selector);
const form = $("#import");
const { file, mapping } = form.elements;
let shown = "";  // the columns whose fields stand there: a look again keeps what was typed
let asked = "";

file.addEventListener("change", () => {
  shown = mapping.value = "";
  mapping.disabled = true;
  for (const part of ["columns", "problems", "rows", "go"]) $(`#${part}`).hidden = true;
  $("#summary").textContent = file.files.length ? "Reading…" : "";
  if (file.files.length) lookAgain();
});

function lookAgain() {
  if (form.getAttribute("aria-busy") === "true") return;  // asked for again when the answer is there
  asked = mapping.value;
  form.requestSubmit();
}

form.addEventListener("answered", ({ detail: { ok, body } }) => {
  if (ok && !body.columns) return;  // the import itself
  if (body.columns) showColumns(body.columns);
  show("problems", ok && body.problems.length, ok && body.problems.map((one) => [one.column || "–", one.problem, one.rows, one.first_line]));
  if (ok) showRows(body);
  $("#rows").hidden = !ok;
  $("#go").hidden = !ok;
  const { rows, good, errors, flagged } = body.counts ?? {};
  $("#summary").textContent = ok
    ? `${rows.toLocaleString("en")} rows: ${good.toLocaleString("en")} good, ${errors.toLocaleString("en")} with errors, ${flagged.toLocaleString("en")} without a field. ${body.encoding}, separated by ${{ "\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars" }[body.separator] ?? body.separator}.`
    : "";
  if (mapping.value !== asked) queueMicrotask(lookAgain);
});

function showColumns(columns) {
  const names = JSON.stringify(columns.map((one) => one.column));
  const lines = $("#columns tbody");
  if (names !== shown) {
    lines.replaceChildren(...columns.map(({ column, field }) => {
      const input = document.createElement("input");
      Object.assign(input, { value: field ?? "", autocomplete: "off", maxLength: 60 });
      input.setAttribute("list", "fields");
      input.setAttribute("aria-label", `${column} becomes`);
      input.dataset.column = column;
      const name = cell(column, "th");
      name.scope = "row";
      return row([name, input, ""]);
    }));
    shown = names;
  }
  columns.forEach(({ examples }, number) => {
    if (examples) lines.rows[number].cells[2].textContent = examples.join(" · ");
  });
  $("#columns").hidden = false;
}

$("#columns").addEventListener("change", () => {
  const fields = [...$("#columns").querySelectorAll("input")].map((one) => [one.dataset.column, one.value.trim() || null]);
  mapping.value = JSON.stringify(Object.fromEntries(fields));
  mapping.disabled = false;
  lookAgain();
});

function showRows({ rows }) {
  const fields = [...new Set(rows.flatMap((one) => Object.keys(one.profile)))];
  $("#rows thead").replaceChildren(row(["Line", ...fields, "Problems"].map((one) => Object.assign(cell(one, "th"), { scope: "col" }))));
  $("#rows tbody").replaceChildren(...rows.map((one) => row([
    one.line, ...fields.map((field) => one.profile[field] ?? ""),
    one.problems.map(({ column, problem }) => `${column} ${problem}`.trim()).join("; "),
  ])));
}

function show(part, there, lines) {
  $(`#${part}`).hidden = !there;
  if (there) $(`#${part} tbody`).replaceChildren(...lines.map(row));
}

function row(cells) {
  const line = document.createElement("tr");
  line.append(...cells.map((one) => (one instanceof HTMLTableCellElement ? one : cell(one))));
  return line;
}

function cell(content, name = "td") {
  const made = document.createElement(name);
  if (content instanceof Node) made.append(content);
  else made.textContent = typeof content === "number" ? content.toLocaleString("en") : content;
  if (typeof content === "number") made.className = "number";
  return made;
}
