"use strict";
const settings = JSON.parse(document.getElementById("settings").textContent);
const by = id => document.getElementById(id);
const memory = "marco relabel " + settings.name;
// Every answer is an entry of its own, written at once, so that the page can be open twice without losing answers.
const read = key => { try { return JSON.parse(localStorage.getItem(memory + key)); } catch (error) { return null; } };
const keep = (key, value) => { try { localStorage.setItem(memory + key, JSON.stringify(value)); } catch (error) { /* not kept */ } };
const state = { rater: read(" rater") ?? (settings.raters.length === 1 ? settings.raters[0] : ""), at: 0, answers: {} };
state.at = Math.min(read(" at") ?? 0, settings.items.length - 1);
// Each rater of the list has separate answers: two raters who share a computer do not see each other's.
const owner = (rater = state.rater) => settings.raters.includes(rater) ? rater : "";
const fold = text => text.trim().toLowerCase();
const listedName = name => settings.raters.find(rater => fold(rater) === fold(name)) ?? name.trim();
const entry = (image, rater = owner()) => ` ${rater} ${image}`;
function recall() {
  for (const rater of ["", ...settings.raters]) for (const [image] of settings.items) {
    const key = entry(image, rater), stored = read(key);
    if (stored) state.answers[key] = stored;
  }
}
const today = () => { const d = new Date(); return [d.getFullYear(), d.getMonth() + 1, d.getDate()].map(n => String(n).padStart(2, "0")).join("-"); };
const id = () => settings.items[state.at][0];
const answer = (image = id(), rater = owner()) => state.answers[entry(image, rater)] || { label: "", date: "", note: "" };
const answered = () => settings.items.filter(([image]) => answer(image).label).length;

for (const name of settings.raters) by("raters").append(new Option(name));
settings.classes.forEach((name, index) => {
  const button = document.createElement("button");
  button.textContent = (index < 9 ? index + 1 + "  " : "") + name;
  button.dataset.label = name;
  button.onclick = () => choose(name);
  by("classes").append(button, " ");
});
settings.items.forEach((item, index) => {
  const button = document.createElement("button");
  const image = new Image();
  image.loading = "lazy"; image.src = item[1]; image.alt = "";
  button.append(image, document.createElement("span"));
  button.onclick = () => { showGrid(false); go(index); };
  by("grid").append(button);
});

function go(index) {
  state.at = Math.min(Math.max(index, 0), settings.items.length - 1);
  keep(" at", state.at);
  show();
}
function show() {
  by("image").src = settings.items[state.at][1];
  by("image").alt = "drop image " + (state.at + 1);
  by("note").value = answer().note;
  if (document.activeElement !== by("rater")) by("rater").value = state.rater;
  by("count").textContent = `image ${state.at + 1} of ${settings.items.length}, ${answered()} answered`;
  for (const button of by("classes").children) button.setAttribute("aria-pressed", button.dataset.label === answer().label);
  if (!by("grid").hidden) label();
}
function label() {
  settings.items.forEach((item, index) => {
    const button = by("grid").children[index];
    button.lastChild.textContent = index + 1 + " " + (answer(item[0]).label || "–");
    button.classList.toggle("now", index === state.at);
  });
}
function showGrid(on) {
  by("grid").hidden = !on; by("single").hidden = on;
  by("view").textContent = on ? "One image" : "All images";
  show();
}
function set(image, change, rater = owner()) {
  state.answers[entry(image, rater)] = Object.assign({}, answer(image, rater), change);
  keep(entry(image, rater), answer(image, rater));
}
function setRater(name, takes = true) {
  const earlier = owner() || !takes ? [] : settings.items.map(([image]) => [image, answer(image)]);
  by("rater").value = state.rater = listedName(name);
  keep(" rater", state.rater);
  // Answers from before the name was entered.
  if (owner()) for (const [image, unowned] of earlier) if (unowned.label || unowned.note) {
    if (!answer(image).label) set(image, unowned);
    state.answers[entry(image, "")] = null;
    keep(entry(image, ""), null);
  }
  show();
}
function choose(name) {
  set(id(), { label: name, date: name ? today() : "" });
  by("single").classList.remove("full");
  go(state.at + (name ? 1 : 0));
}
function nextOpen() {
  for (let step = 1; step <= settings.items.length; step++) {
    const index = (state.at + step) % settings.items.length;
    if (!answer(settings.items[index][0]).label) return go(index);
  }
}
// A cell that a spreadsheet would run as a formula begins with an apostrophe (name_tables.shielded).
const formula = /^'*[=+\-@\t\r＝＋－＠]/;
const shielded = text => formula.test(text) ? "'" + text : text;
const plain = text => text.startsWith("'") && formula.test(text) ? text.slice(1) : text;
const quoted = text => /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
function sheet() {
  const lines = ["\ufeffimage_id,file,label,rater,date,note"];  // With a byte order mark, which Excel needs.
  for (const [image, file] of settings.items) {
    const { label, date, note } = answer(image);
    lines.push([image, file, label, state.rater, date, note].map(shielded).map(quoted).join(","));
  }
  return lines.join("\n") + "\n";
}
function save() {
  if (by("rater").value !== state.rater) setRater(by("rater").value);
  if (!state.rater.trim()) { by("rater").focus(); alert("Please enter your name first: it goes into the sheet."); return; }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([sheet()], { type: "text/csv" }));
  link.download = `sheet-${state.rater.trim().replace(/[^\p{L}\p{N} .@_-]/gu, "_")}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}
// Rows of a sheet; the separator is the one that is most frequent in its first line, as spreadsheets differ.
function rows(text) {
  text = text.replace(/^\uFEFF/, "");
  const named = /^"?sep=(.)"?\r?\n/i.exec(text);
  if (named) text = text.slice(named[0].length);
  const table = [[""]], head = text.split("\n", 1)[0];
  const comma = named ? named[1] : [",", ";", "\t"].reduce((best, other) => head.split(other).length > head.split(best).length ? other : best);
  let inside = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i], row = table[table.length - 1];
    if (inside && c === '"' && text[i + 1] === '"') { row[row.length - 1] += '"'; i++; }
    else if (c === '"') inside = !inside;
    else if (!inside && c === comma) row.push("");
    else if (!inside && c === "\n") table.push([""]);
    else if (inside || c !== "\r") row[row.length - 1] += c;
  }
  return table.filter(row => row.some(cell => cell.trim()));
}
const words = label => fold(label).match(/[\p{L}\p{N}]+/gu)?.filter(word => word !== "and").join(" ") ?? fold(label);
// Whether a cell may be what a spreadsheet makes of an id: Excel keeps 15 digits and shows fewer, such as 1.07695E+15.
function rounded(cell, image) {
  const text = cell.replace(",", "."), value = Number(text), digits = text.split(/e/i)[0].replace(/\D/g, "").length;
  if (!text || !isFinite(value)) return false;
  return Math.abs(value - Number(image)) < 10 ** (Math.floor(Math.log10(Math.abs(value) || 1)) - Math.min(digits, 15) + 1);
}
// Adds a sheet's answers to those in this browser and returns a message, or nothing. Asks where the two differ.
function load([head = [], ...lines], sheet) {
  const columns = head.map(fold), missing = ["image_id", "label"].filter(name => !columns.includes(name));
  if (missing.length) return `${sheet} has no column ${missing.join(", ")}. Nothing was loaded; choose a sheet that this page saved.`;
  const known = new Set(settings.items.map(item => item[0]));
  const cells = lines.map(line => Object.fromEntries(columns.map((name, index) => [name, plain((line[index] ?? "").trim())])));
  const byFile = new Map(settings.items.map(([image, file]) => [file, image]));
  for (const row of cells) {
    const image = byFile.get(row.file);
    if (image && !known.has(row.image_id) && rounded(row.image_id ?? "", image)) row.image_id = image;
  }
  const matching = cells.filter(row => known.has(row.image_id));
  if (!matching.length) return `${sheet} has no line for an image of this page. Nothing was loaded; choose a sheet that this page saved.`;
  const raters = new Set(matching.filter(row => row.rater).map(row => listedName(row.rater)));
  if (raters.size === 1 && !raters.has(state.rater)) setRater([...raters][0], !state.rater);
  const unknown = new Set(), added = [], differing = [];
  for (const row of matching) {
    const label = settings.classes.find(name => words(name) === words(row.label)) ?? "";
    if (row.label && !label) unknown.add(row.label);
    if (!label && !row.note) continue;
    const rater = owner(row.rater ? listedName(row.rater) : state.rater), stored = answer(row.image_id, rater);
    const change = {};
    if (label && label !== stored.label) Object.assign(change, { label, date: row.date ?? "" });
    if (row.note) change.note = row.note;
    const differs = stored.label && change.label || stored.note && change.note && stored.note !== change.note;
    (differs ? differing : added).push([row.image_id, change, rater]);
  }
  const question = `${differing.length} of your answers differ in ${sheet}. Replace them with the sheet's?`;
  for (const update of differing.length && confirm(question) ? [...added, ...differing] : added) set(...update);
  if (unknown.size) return `${sheet}: ${[...unknown].join(", ")} was skipped; the classes are ${settings.classes.join(", ")}.`;
  return added.length || differing.length ? "" : `${sheet} has no answers yet. Nothing was loaded.`;
}
by("load").onchange = async event => {
  const file = event.target.files[0], message = load(rows(await file.text()), file.name);
  event.target.value = "";
  show();
  if (message) alert(message);
};
window.addEventListener("storage", () => { recall(); show(); });
// Not at every letter: while "anna" is typed, the name is for a moment "ann", another rater's.
by("rater").onchange = event => setRater(event.target.value);
by("note").oninput = event => set(id(), { note: event.target.value });
by("view").onclick = () => showGrid(by("grid").hidden);
by("back").onclick = () => go(state.at - 1);
by("forth").onclick = () => go(state.at + 1);
by("next-open").onclick = nextOpen;
by("save").onclick = save;
by("image").onclick = () => by("single").classList.toggle("full");
document.addEventListener("keydown", event => {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
  const number = Number(event.key);
  if (event.key >= "1" && event.key <= "9" && number <= settings.classes.length) choose(settings.classes[number - 1]);
  else if (event.key === "0" || event.key === "Backspace") choose("");
  else if (event.key === "ArrowLeft") go(state.at - 1);
  else if (event.key === "ArrowRight") go(state.at + 1);
  else if (event.key === "n") nextOpen();
  else if (event.key === "g") showGrid(by("grid").hidden);
  else if (event.key === "z") by("single").classList.toggle("full");
  else if (event.key === "s") save();
  else return;
  event.preventDefault();
});
recall();
show();
