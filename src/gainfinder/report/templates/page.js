"use strict";
// Marks carry what they are as aria-label: shown on hover, tap and focus.
const tip = document.getElementById("tip");
const marks = ["axis", "legend", "line mark"].reduce(
  (found, other) => found + `:not([aria-roledescription="${other}"])`, 'svg [role="graphics-symbol"][aria-label]');
function show(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(6, Math.min(x + 14, innerWidth - box.width - 6)) + "px";
  tip.style.top = (y + 18 + box.height > innerHeight ? y - box.height - 12 : y + 18) + "px";
}
// One stop of the tabulator for each figure, whose marks the arrow keys go through.
for (const figure of document.querySelectorAll("figure svg")) {
  const found = [...figure.querySelectorAll(marks)];
  found.forEach((mark, i) => mark.setAttribute("tabindex", i ? "-1" : "0"));
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const here = found.indexOf(event.target);
    if (!step || here < 0) return;
    event.preventDefault();
    const next = found[(here + step + found.length) % found.length];
    found[here].setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
}
for (const kind of ["pointermove", "pointerdown"]) {
  document.addEventListener(kind, (event) => {
    if (!event.target.closest || event.target.closest("[data-tells]")) return;  // it shows by itself what it is
    const mark = event.target.closest(marks);
    if (mark) show(mark.getAttribute("aria-label"), event.clientX, event.clientY); else tip.hidden = true;
  });
}
document.addEventListener("focusin", (event) => {
  if (!event.target.matches(marks)) return;
  const box = event.target.getBoundingClientRect();
  show(event.target.getAttribute("aria-label"), box.left + box.width / 2, box.top + box.height / 2);
});
document.addEventListener("focusout", () => { tip.hidden = true; });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

// Tables sort by a click on a column's head: numbers as numbers, down first; words as words, up first.
const value = (row, column) => {
  const cell = row.cells[column];
  const text = cell ? cell.dataset.value || cell.textContent.trim() : "";
  return /^[+-]?[\d,]*\.?\d+(e-?\d+)?%?$/.test(text) ? parseFloat(text.replace(/,/g, "")) : text;
};
for (const table of document.querySelectorAll("table:not(.by-script)")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const rows = [...table.tBodies[0].rows];
    // A column is of numbers if all its cells are, or have none (–).
    const words = rows.some((row) => typeof value(row, column) === "string" && value(row, column) !== "–");
    if (words) { head.classList.add("text"); rows.forEach((row) => row.cells[column] && row.cells[column].classList.add("text")); }
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const up = before ? before === "descending" : words;
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const compare = (a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        if (words) return (up ? 1 : -1) * `${x}`.localeCompare(`${y}`, undefined, { numeric: true });
        if (typeof x !== typeof y) return typeof x === "string" ? 1 : -1;  // what has no number comes last
        return typeof x === "string" ? 0 : (up ? 1 : -1) * (x - y);
      };
      table.tBodies[0].append(...rows.sort(compare));
    });
  });
}
// Long tables can be filtered: a row stays that has each word in it.
for (const table of document.querySelectorAll("table[data-filter]")) {
  const rows = [...table.tBodies[0].rows].map((row) => [row, row.textContent.toLowerCase()]);
  const input = Object.assign(document.createElement("input"), { type: "search", placeholder: table.dataset.filter });
  input.setAttribute("aria-label", table.dataset.filter);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const [row, text] of rows) row.hidden = !words.every((word) => text.includes(word));
  });
  table.closest(".scroll").before(input);
}
// Paper has no folds: all is open while the page is printed.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => { for (const one of folded) one.open = false; });
// Thumbnails of few pixels are shown as pixels, not as a blur.
for (const image of document.querySelectorAll(".pictures img")) {
  const mark = () => { if (image.naturalWidth < 64) image.classList.add("small"); };
  if (image.complete) mark(); else image.addEventListener("load", mark);
}
