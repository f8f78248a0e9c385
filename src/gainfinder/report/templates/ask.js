"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const store = `gainfinder-${data.key}`;
let given = [];  // 1, 2 or 0 for each question so far

const average = (values) => values.reduce((sum, one) => sum + one, 0) / values.length;
// The same bets as metrics/evidence.py: capital against a mean of at most 0, on these images and on images like these.
function capital(outcomes) {
  let here = data.fractions.map(() => 1), there = [...here], seen = 0, refuted = false, highest = [1, 1];
  outcomes.forEach((x, t) => {
    const mean = -seen / (data.changed - t);
    if (mean < -1 || (mean === -1 && x > -1)) refuted = true;
    const won = mean > -1 ? (x - mean) / (1 + mean) : 0;
    here = here.map((one, k) => Math.min(one * (1 + data.fractions[k] * won), 1e300));
    there = there.map((one, k) => Math.min(one * (1 + data.fractions[k] * x), 1e300));
    seen += x;
    const now = [refuted ? 1e300 : average(here), average(there)];
    highest = highest.map((one, i) => Math.max(one, now[i]));
  });
  return Math.min(...highest);
}
// One model counts as +1, the other as -1; the page does not know which of them is the new one.
function known() {
  const outcomes = given.map((answer, i) => (answer ? (answer === 1 ? 1 : -1) * data.questions[i].sign : 0));
  return Math.max(capital(outcomes), capital(outcomes.map((x) => -x))) >= 1 / data.level;
}
function file() {
  // A spreadsheet would take what begins so for a formula; `gainfinder ask` takes the apostrophe off again.
  const formula = (text) => /^'*[=+\-@\t\r\n]/.test(text) && !/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text);
  const safe = (text) => (formula(text) ? `'${text}` : text);
  const cell = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rows = given.map((answer, i) => {
    const one = data.questions[i];
    return [`${i + 1}`, one.id, answer ? one.shown[answer - 1] : data.neither, data.key].map(safe).map(cell).join(",");
  });
  return ["number,id,answer,questions", ...rows].join("\n") + "\n";
}
const picture = at("picture"), texts = at("texts");  // the page of images has the one, that of texts the other
function draw(one) {
  if (picture) {
    picture.src = one.picture;
    return;
  }
  texts.replaceChildren(...one.texts.map((text) => {
    const part = document.createElement("p");
    part.dir = "auto";
    part.textContent = text;
    return part;
  }));
  texts.scrollTop = 0;
}
function show() {
  const done = given.length, enough = known(), all = done === data.questions.length;
  at("progress").textContent = enough || all ? `${done} answered` : `question ${done + 1} of at most ${data.questions.length}`;
  at("question").hidden = enough || all;
  at("end").hidden = !(enough || all);
  at("end").textContent = enough ? "Enough: it is known which of the two is better. Save the answers."
    : "These were all. Save the answers.";
  if (!enough && !all) {
    const one = data.questions[done];
    draw(one);
    at("first").querySelector("span").textContent = one.shown[0];
    at("second").querySelector("span").textContent = one.shown[1];
  }
  at("undo").disabled = !done;
  at("save").hidden = !done;
  at("save").href = "data:text/csv;charset=utf-8," + encodeURIComponent(file());
  try { localStorage.setItem(store, JSON.stringify(given)); } catch { /* a browser that keeps nothing */ }
}
function answer(value) {
  if (at("question").hidden) return;
  given.push(value);
  show();
}
function undo() {
  given.pop();
  show();
}
at("first").addEventListener("click", () => answer(1));
at("second").addEventListener("click", () => answer(2));
at("neither").addEventListener("click", () => answer(0));
at("undo").addEventListener("click", undo);
picture?.addEventListener("load", (event) => event.target.classList.toggle("small", event.target.naturalWidth < 64));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const value = ["0", "1", "2"].indexOf(event.key);
  if (value >= 0) answer(value);
  else if (event.key === "u" || event.key === "U" || event.key === "Backspace") undo();
});
try {
  const kept = JSON.parse(localStorage.getItem(store) || "[]");
  given = kept.filter((one) => [0, 1, 2].includes(one)).slice(0, data.questions.length);
} catch { /* likewise */ }
show();
