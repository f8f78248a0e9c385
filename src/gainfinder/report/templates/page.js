"use strict";
// Marks carry what they are as aria-label: shown on hover, tap and focus.
const tip = document.getElementById("tip");
const marks = ["axis", "legend", "line mark"].reduce(
  (found, other) => found + `:not([aria-roledescription="${other}"])`, 'svg [role="graphics-symbol"][aria-label]');
function show(mark, x, y) {
  tip.textContent = mark.getAttribute("aria-label");
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(6, Math.min(x + 14, innerWidth - box.width - 6)) + "px";
  tip.style.top = (y + 18 + box.height > innerHeight ? y - box.height - 12 : y + 18) + "px";
}
for (const mark of document.querySelectorAll(marks)) mark.setAttribute("tabindex", "0");
for (const kind of ["pointermove", "pointerdown"]) {
  document.addEventListener(kind, (event) => {
    const mark = event.target.closest ? event.target.closest(marks) : null;
    if (mark) show(mark, event.clientX, event.clientY); else tip.hidden = true;
  });
}
document.addEventListener("focusin", (event) => {
  if (!event.target.matches(marks)) return;
  const box = event.target.getBoundingClientRect();
  show(event.target, box.left + box.width / 2, box.top + box.height / 2);
});
document.addEventListener("focusout", () => { tip.hidden = true; });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

// Tables sort by a click on a column's head: numbers as numbers, down first; words as words, up first.
const value = (row, column) => {
  const cell = row.cells[column];
  const text = cell ? cell.dataset.value || cell.textContent.trim() : "";
  const number = parseFloat(text.replace(/,/g, "").replace("−", "-"));
  return Number.isNaN(number) ? text : number;
};
for (const table of document.querySelectorAll("table")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const rows = [...table.tBodies[0].rows];
    const words = rows.every((row) => typeof value(row, column) === "string");
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
        if (typeof x !== typeof y) return typeof x === "string" ? 1 : -1;  // what has no number comes last
        return (up ? 1 : -1) * (typeof x === "string" ? x.localeCompare(y) : x - y);
      };
      table.tBodies[0].append(...rows.sort(compare));
    });
  });
}
// Thumbnails of few pixels are shown as pixels, not as a blur.
for (const image of document.querySelectorAll(".pictures img")) {
  const mark = () => { if (image.naturalWidth < 64) image.classList.add("small"); };
  if (image.complete) mark(); else image.addEventListener("load", mark);
}
