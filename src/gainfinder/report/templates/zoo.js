"use strict";
// All ordered pairs of a zoo as dots, as a map and in a table: one set of numbers, filtered and picked together.
(() => {
const at = (id) => document.getElementById(id);
const zoo = JSON.parse(at("zoo").textContent);
const names = zoo.models.map((model) => model.name);
const count = names.length, pairs = count * (count - 1);
const NONE = -(2 ** 31), FEW = 400, MANY = 5000, MOST_CHARACTERS = 30;
const BLUES = ["#f7fbff", "#c6dbef", "#6baed6", "#2171b5", "#08306b"];
const BOTH_WAYS = ["#7f2704", "#e6812f", "#f7f7f7", "#4a98c9", "#08306b"];
// Loops, as `from` with a function takes ten times as long.
function numbers(values) {
  const found = new Int32Array(pairs);
  for (let pair = 0; pair < pairs; pair++) found[pair] = values[pair] === null ? NONE : values[pair];
  return found;
}
const measures = new Map(zoo.measures.map((one) => [one.key, { ...one, unit: 10 ** one.digits, values: numbers(one.values) }]));
const kept = new Uint8Array(pairs).fill(1);  // by the filters
let picked = -1;

// The pairs of the first student come first, with each teacher; then those of the second.
const studentOf = (pair) => Math.floor(pair / (count - 1));
const teacherOf = (pair) => pair % (count - 1) + (pair % (count - 1) >= studentOf(pair) ? 1 : 0);
const pairOf = (student, teacher) => student * (count - 1) + teacher - (teacher > student ? 1 : 0);
const written = (measure, value) => (value > 0 && measure.form === "pp" ? "+" : "")
  + value.toFixed(measure.digits) + (measure.form === "percent" ? "%" : "");
const text = (measure, pair) => {
  const value = measure.values[pair];
  if (value === NONE) return "–";
  return (value === 0 && measure.form === "pp" ? "+" : "") + written(measure, value / measure.unit);
};
const about = (pair) => [`${names[teacherOf(pair)]} teaches ${names[studentOf(pair)]}`,
  ...zoo.measures.slice(0, 6).map((one) => `${one.head}: ${text(measures.get(one.key), pair)}`)].join("\n");
const short = (name) => (name.length > MOST_CHARACTERS ? `${name.slice(0, 12)}…${name.slice(13 - MOST_CHARACTERS)}` : name);
const colour = (variable) => getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

function extent(measure) {
  let low = Infinity, high = -Infinity;
  for (const value of measure.values) {
    if (value === NONE) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low > high ? [0, 1] : [low / measure.unit, high / measure.unit];
}
// Round numbers from below the least to above the greatest.
function ticks([low, high], most) {
  const rough = (high - low || Math.abs(high) || 1) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((times) => power * times >= rough);
  const found = [];
  for (let i = Math.floor(low / step + 1e-9); i < high / step + 1 - 1e-9; i++) found.push(+(i * step).toPrecision(12));
  if (found.length < 2) found.push(+(found[0] + step).toPrecision(12));
  return found;
}
function draw(parent, kind, attributes, content) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (content !== undefined) made.textContent = content;
  parent.append(made);
  return made;
}
function fit(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  return ratio;
}
// 256 shades between colours, three channels each.
function shades(colours) {
  const stops = colours.map(channels), found = new Uint8ClampedArray(768);
  for (let shade = 0; shade < 256; shade++) {
    const place = shade / 255 * (stops.length - 1), i = Math.min(Math.floor(place), stops.length - 2);
    stops[i].forEach((from, channel) => { found[3 * shade + channel] = from + (stops[i + 1][channel] - from) * (place - i); });
  }
  return found;
}

// A picture of all pairs: its dots or cells on a canvas, axes and marks over it as SVG, which has the page's colours.
class Picture {
  constructor(box) {
    this.box = box;
    this.canvas = box.querySelector("canvas");
    this.svg = box.querySelector("svg");
    this.marks = draw(box, "svg", { "aria-hidden": "true" });  // over the dots, axes under them
    this.hovered = -1;
    box.addEventListener("pointermove", (event) => this.hover(event));
    box.addEventListener("pointerdown", (event) => this.hover(event));
    box.addEventListener("pointerleave", () => this.leave());
    box.addEventListener("blur", () => this.leave());
    box.addEventListener("click", () => { if (this.hovered >= 0) pick(this.hovered); });
    box.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => { if (box.clientWidth !== this.seen) this.redraw(); }).observe(box);
  }
  redraw() {
    this.seen = this.box.clientWidth;
    this.layout();
    for (const svg of [this.svg, this.marks]) {
      svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
      svg.style.width = `${this.width}px`;
    }
    this.paint();
    this.mark();
  }
  hover(event) {
    const box = this.svg.getBoundingClientRect();
    this.hovered = this.pairAt(event.clientX - box.left, event.clientY - box.top);
    this.mark();
    if (this.hovered < 0) tip.hidden = true;
    else show(about(this.hovered), event.clientX, event.clientY);
  }
  leave() {
    this.hovered = -1;
    this.mark();
    tip.hidden = true;
  }
  key(event) {
    if (event.key === "Enter" && this.hovered >= 0) pick(this.hovered);
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    this.hovered = this.step(this.hovered < 0 ? picked : this.hovered, event.key.slice(5));
    this.mark();
    if (this.hovered < 0) return;
    const box = this.svg.getBoundingClientRect(), [x, y] = this.placeOf(this.hovered);
    show(about(this.hovered), box.left + x, box.top + y);
  }
}

class Dots extends Picture {
  constructor(box) {
    super(box);
    const choice = box.closest("figure").querySelector("select");
    if (choice) choice.addEventListener("change", () => { box.dataset.x = choice.value; this.redraw(); });
  }
  layout() {
    const width = Math.max(240, this.box.clientWidth), height = Math.round(Math.min(320, 0.7 * width));
    const [left, right, top, bottom] = [56, 12, 8, 42];
    [this.width, this.height] = [width, height];
    this.x = measures.get(this.box.dataset.x);
    this.y = measures.get(this.box.dataset.y);
    const up = extent(this.y);
    if (this.y.form === "percent") up[0] = Math.min(0, up[0]);
    const xs = ticks(extent(this.x), Math.max(3, width / 70)), ys = ticks(up, 6);
    const placeX = (value) => left + (width - left - right) * (value - xs[0]) / (xs.at(-1) - xs[0]);
    const placeY = (value) => height - bottom - (height - top - bottom) * (value - ys[0]) / (ys.at(-1) - ys[0]);
    this.axes(xs, ys, placeX, placeY, { left, right, top, bottom });
    this.places = [[this.x, placeX], [this.y, placeY]].map(([{ values, unit }, place]) => {
      const found = new Float32Array(pairs);
      for (let pair = 0; pair < pairs; pair++) found[pair] = values[pair] === NONE ? NaN : place(values[pair] / unit);
      return found;
    });
    this.inOrder = null;
  }
  axes(xs, ys, placeX, placeY, { left, right, top, bottom }) {
    const { svg, width, height } = this, title = (measure) => zoo.titles[measure.key] ?? measure.head;
    const label = (measure, value, step) => value.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)))
      + (measure.form === "percent" ? "%" : "");
    svg.replaceChildren();
    for (const value of xs) {
      draw(svg, "line", { class: "grid", x1: placeX(value), x2: placeX(value), y1: top, y2: height - bottom });
      draw(svg, "text", { x: placeX(value), y: height - bottom + 17, "text-anchor": "middle" }, label(this.x, value, xs[1] - xs[0]));
    }
    for (const value of ys) {
      draw(svg, "line", { class: "grid", x1: left, x2: width - right, y1: placeY(value), y2: placeY(value) });
      draw(svg, "text", { x: left - 7, y: placeY(value) + 4, "text-anchor": "end" }, label(this.y, value, ys[1] - ys[0]));
    }
    draw(svg, "text", { class: "title", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, title(this.x));
    draw(svg, "text", { class: "title", "text-anchor": "middle",
      transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)` }, title(this.y));
  }
  paint() {
    const ratio = fit(this.canvas, this.width, this.height), context = this.canvas.getContext("2d");
    const [on, off] = [colour("--gain"), colour("--line")];
    if (pairs > MANY) this.blend(context, ratio, channels(on), channels(off));
    else this.circles(context, ratio, on, off);
  }
  circles(context, ratio, on, off) {
    const [xs, ys] = this.places, radius = pairs <= FEW ? 5 : 3;
    context.scale(ratio, ratio);
    context.globalAlpha = pairs <= FEW ? 0.8 : 0.5;
    for (const now of [0, 1]) {
      context.fillStyle = now ? on : off;
      for (let pair = 0; pair < pairs; pair++) {
        if (kept[pair] !== now || Number.isNaN(xs[pair] + ys[pair])) continue;
        context.beginPath();
        context.arc(xs[pair], ys[pair], radius, 0, 2 * Math.PI);
        context.fill();
      }
    }
  }
  // Many dots: counted by pixel, the darker the more, on a scale of logarithms.
  blend(context, ratio, on, off) {
    const { width, height } = this.canvas, [xs, ys] = this.places, side = Math.max(1, Math.round(1.5 * ratio));
    const counts = [new Uint16Array(width * height), new Uint16Array(width * height)];
    for (let pair = 0; pair < pairs; pair++) {
      if (Number.isNaN(xs[pair] + ys[pair])) continue;
      const left = Math.round(xs[pair] * ratio - side / 2), top = Math.round(ys[pair] * ratio - side / 2);
      const own = counts[kept[pair]];
      for (let y = top; y < top + side; y++) for (let x = left; x < left + side; x++) own[y * width + x]++;
    }
    const image = context.createImageData(width, height), pixels = image.data;
    let most = 1;
    for (const own of counts) for (let i = 0; i < own.length; i++) if (own[i] > most) most = own[i];
    most = Math.log(1 + most);
    for (let i = 0; i < width * height; i++) {
      const own = counts[1][i] ? 1 : 0, times = counts[own][i];
      if (!times) continue;
      const [red, green, blue] = own ? on : off;
      pixels[4 * i] = red;
      pixels[4 * i + 1] = green;
      pixels[4 * i + 2] = blue;
      pixels[4 * i + 3] = 255 * (0.25 + 0.75 * Math.log(1 + times) / most);
    }
    context.putImageData(image, 0, 0);
  }
  placeOf(pair) { return [this.places[0][pair], this.places[1][pair]]; }
  pairAt(x, y) {
    const [xs, ys] = this.places;
    let best = -1, least = 144;  // within twelve pixels
    for (let pair = 0; pair < pairs; pair++) {
      const distance = (xs[pair] - x) ** 2 + (ys[pair] - y) ** 2;
      if (distance < least && kept[pair]) [best, least] = [pair, distance];
    }
    return best;
  }
  step(pair, way) {
    const [xs, ys] = this.places;
    this.inOrder ??= Int32Array.from({ length: pairs }, (_, i) => i).filter((i) => !Number.isNaN(xs[i] + ys[i]))
      .sort((a, b) => xs[a] - xs[b] || ys[b] - ys[a]);
    const forward = way === "Right" || way === "Down" ? 1 : -1, all = this.inOrder.length;
    for (let tried = 0, i = pair < 0 ? (forward > 0 ? -1 : all) : this.inOrder.indexOf(pair); tried < all; tried++) {
      i = (i + forward + all) % all;
      if (kept[this.inOrder[i]]) return this.inOrder[i];
    }
    return -1;
  }
  mark() {
    if (!this.width) return;
    this.marks.replaceChildren();
    for (const [pair, kind] of [[picked, "picked"], [this.hovered, "hovered"]]) {
      if (pair < 0 || Number.isNaN(this.places[0][pair] + this.places[1][pair])) continue;
      const [cx, cy] = this.placeOf(pair);
      draw(this.marks, "circle", { class: kind, cx, cy, r: pairs <= FEW ? 8 : 6 });
    }
  }
}

class Cells extends Picture {
  constructor(box) {
    super(box);
    [this.by, this.order] = box.closest("figure").querySelectorAll("select");
    this.legend = box.closest("figure").querySelector(".legend");
    for (const choice of [this.by, this.order]) choice.addEventListener("change", () => this.redraw());
  }
  layout() {
    const names_ = names.map(short), room = Math.max(200, this.box.clientWidth);
    this.models = zoo.orders[this.order.value];
    const long = (name) => 7 * name.length, across = 26 + Math.max(...names_.map(long));
    this.row = new Int32Array(count);
    this.models.forEach((model, row) => { this.row[model] = row; });
    // Names above lean to the right, beyond the last columns.
    const beyond = (cell) => Math.max(4, ...this.models.map((model, row) => 8 + 0.77 * long(names_[model]) - (count - row - 0.5) * cell));
    const widest = Math.min(64, (room - across - beyond((room - across) / (count + 2))) / count);
    this.named = count <= 40 || widest >= 13;
    this.left = this.named ? Math.round(across) : 22;
    this.top = this.named ? Math.round(24 + 0.68 * across) : 22;
    // Whole pixels, so that all cells are of one size; where there is no room for the least, it scrolls.
    this.cell = this.named ? Math.max(count <= 40 ? 20 : 13, Math.floor(widest)) : Math.max(2, Math.floor(Math.min(920, room - this.left) / count));
    this.side = this.cell * count;
    this.width = this.left + this.side + (this.named ? Math.round(beyond(this.cell)) : 4);
    this.height = this.top + this.side + 4;
    const { svg } = this;
    svg.replaceChildren();
    draw(svg, "text", { class: "title", x: this.left + this.side / 2, y: 13, "text-anchor": "middle" }, "teacher");
    draw(svg, "text", { class: "title", "text-anchor": "middle",
      transform: `translate(13 ${this.top + this.side / 2}) rotate(-90)` }, "student");
    if (this.named) {
      this.models.forEach((model, row) => {
        const place = (row + 0.5) * this.cell;
        draw(svg, "text", { x: this.left - 6, y: this.top + place + 4, "text-anchor": "end" }, names_[model]);
        draw(svg, "text", { transform: `translate(${this.left + place + 3} ${this.top - 6}) rotate(-40)` }, names_[model]);
      });
    }
  }
  paint() {
    const measure = measures.get(this.by.value), [low, high] = extent(measure), both = measure.form === "pp";
    const far = Math.max(-low, high) || 1;
    const [from, to] = both ? [-far, far] : [measure.form === "percent" ? 0 : low, high];
    const colours = shades(both ? BOTH_WAYS : BLUES);
    const share = (pair) => (measure.values[pair] / measure.unit - from) / (to - from || 1);
    const ratio = fit(this.canvas, this.width, this.height), context = this.canvas.getContext("2d");
    const small = document.createElement("canvas");
    small.width = small.height = count;
    const pen = small.getContext("2d"), image = pen.createImageData(count, count);
    for (let pair = 0; pair < pairs; pair++) {
      if (measure.values[pair] === NONE) continue;
      const pixel = 4 * (this.row[studentOf(pair)] * count + this.row[teacherOf(pair)]);
      const shade = 3 * Math.round(255 * Math.max(0, Math.min(1, share(pair))));
      for (let channel = 0; channel < 3; channel++) image.data[pixel + channel] = colours[shade + channel];
      image.data[pixel + 3] = kept[pair] ? 255 : 40;
    }
    pen.putImageData(image, 0, 0);
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, this.left, this.top, this.side, this.side);
    if (this.cell >= 34) this.write(context, measure, (pair) => (both ? Math.abs(2 * share(pair) - 1) : share(pair)));
    this.legend.querySelector("i").style.background = `linear-gradient(90deg, ${(both ? BOTH_WAYS : BLUES).join(", ")})`;
    const ends = this.legend.querySelectorAll("span");
    [from, to].forEach((value, i) => { ends[i].textContent = value ? written(measure, value) : "0"; });
  }
  write(context, measure, depth) {
    context.font = `${this.cell >= 42 ? 11 : 9.5}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let pair = 0; pair < pairs; pair++) {
      if (!kept[pair] || measure.values[pair] === NONE) continue;
      const [x, y] = this.placeOf(pair), value = measure.values[pair] / measure.unit;
      context.fillStyle = depth(pair) > 0.55 ? "#ffffff" : "#0b2239";
      context.fillText(measure.form === "number" ? value.toFixed(2) : `${value.toFixed(1)}${measure.form === "percent" ? "%" : ""}`, x, y);
    }
  }
  placeOf(pair) {
    return [this.left + (this.row[teacherOf(pair)] + 0.5) * this.cell, this.top + (this.row[studentOf(pair)] + 0.5) * this.cell];
  }
  pairAt(x, y) {
    return this.pairIn(Math.floor((y - this.top) / this.cell), Math.floor((x - this.left) / this.cell));
  }
  pairIn(row, column) {
    const inside = row >= 0 && column >= 0 && row < count && column < count && row !== column;
    return inside ? pairOf(this.models[row], this.models[column]) : -1;
  }
  step(pair, way) {
    if (pair < 0) return this.pairIn(0, 1);
    const down = { Down: 1, Up: -1 }[way] ?? 0, right = { Right: 1, Left: -1 }[way] ?? 0;
    const row = this.row[studentOf(pair)], column = this.row[teacherOf(pair)];
    const next = this.pairIn(row + down, column + right);
    if (next >= 0) return next;
    const beyond = this.pairIn(row + 2 * down, column + 2 * right);  // over the diagonal
    return beyond >= 0 ? beyond : pair;
  }
  mark() {
    if (!this.width) return;
    this.marks.replaceChildren();
    for (const [pair, kind] of [[picked, "picked"], [this.hovered, "hovered"]]) {
      if (pair < 0) continue;
      const [x, y] = this.placeOf(pair), { left, top, side, cell } = this;
      draw(this.marks, "rect", { class: "cross", x: left, y: y - cell / 2, width: side, height: cell });
      draw(this.marks, "rect", { class: "cross", x: x - cell / 2, y: top, width: cell, height: side });
      const own = Math.max(cell, 7);
      draw(this.marks, "rect", { class: kind, x: x - own / 2, y: y - own / 2, width: own, height: own });
    }
  }
}

// The table shows some pairs at a time, of an order over all that the filters leave.
const table = at("all-pairs"), SHOWN = Number(table.dataset.rows);
const columns = [studentOf, teacherOf, ...measures.values()];
const byName = new Int32Array(count);
names.map((name, model) => [name, model]).sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true }))
  .forEach(([, model], place) => { byName[model] = place; });
let order = null, page = 0, sorting = { column: 2 + zoo.measures.findIndex((one) => one.key === zoo.sorted_by), up: false };
function sorted() {
  const column = columns[sorting.column], way = sorting.up ? 1 : -1, found = [];
  for (let pair = 0; pair < pairs; pair++) if (kept[pair]) found.push(pair);
  let keys = column.values;
  if (typeof column === "function") {
    keys = new Int32Array(pairs);
    for (const pair of found) keys[pair] = byName[column(pair)];
  }
  const compare = (a, b) => {
    if (keys[a] === keys[b]) return a - b;
    return keys[a] === NONE ? 1 : keys[b] === NONE ? -1 : way * (keys[a] - keys[b]);
  };
  return Int32Array.from(found).sort(compare);
}
function rowOf(pair) {
  const row = document.createElement("tr");
  const cells = [names[studentOf(pair)], names[teacherOf(pair)], ...zoo.measures.map((one) => text(measures.get(one.key), pair))];
  cells.forEach((content, i) => {
    const cell = document.createElement("td");
    cell.textContent = content;
    if (i < 2) cell.className = "text";
    row.append(cell);
  });
  row.classList.toggle("kept", pair === picked);
  row.dataset.pair = pair;
  return row;
}
function list() {
  order ??= sorted();
  const pages = Math.max(1, Math.ceil(order.length / SHOWN));
  page = Math.max(0, Math.min(page, pages - 1));
  const rows = [...order.subarray(page * SHOWN, (page + 1) * SHOWN)].map(rowOf);
  for (const row of rows) row.tabIndex = 0;
  table.tBodies[0].replaceChildren(...rows);
  const first = order.length ? page * SHOWN + 1 : 0, last = Math.min(order.length, (page + 1) * SHOWN);
  at("shown").textContent = `${first.toLocaleString("en")} to ${last.toLocaleString("en")} of ${order.length.toLocaleString("en")}`;
  at("back").disabled = at("first").disabled = page === 0;
  at("on").disabled = at("last").disabled = page === pages - 1;
  at("pager").hidden = pages === 1;
  at("found").textContent = order.length === pairs ? `${pairs.toLocaleString("en")} pairs`
    : `${order.length.toLocaleString("en")} of ${pairs.toLocaleString("en")} pairs`;
}
table.querySelectorAll("thead th").forEach((head, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = head.textContent;
  head.replaceChildren(button);
  if (column < 2) head.classList.add("text");
  button.addEventListener("click", () => {
    sorting = { column, up: sorting.column === column ? !sorting.up : column < 2 };
    for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sorting.up ? "ascending" : "descending");
    [order, page] = [null, 0];
    list();
  });
});
table.querySelectorAll("thead th")[sorting.column].setAttribute("aria-sort", "descending");
for (const [id, to] of [["first", () => 0], ["back", () => page - 1], ["on", () => page + 1], ["last", () => Infinity]]) {
  at(id).addEventListener("click", () => { page = to(); list(); });
}
table.tBodies[0].addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (row && !String(getSelection())) pick(Number(row.dataset.pair));
});
table.tBodies[0].addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.dataset.pair) pick(Number(event.target.dataset.pair));
});

const pictures = [...document.querySelectorAll(".dots")].map((box) => new Dots(box));
pictures.push(...[...document.querySelectorAll(".cells")].map((box) => new Cells(box)));
function pick(pair) {
  picked = pair === picked ? -1 : pair;
  at("picked").hidden = picked < 0;
  for (const row of table.tBodies[0].rows) row.classList.toggle("kept", Number(row.dataset.pair) === picked);
  for (const picture of pictures) picture.mark();
  if (picked < 0) return;
  const [student, teacher] = [studentOf(picked), teacherOf(picked)];
  const rows = [rowOf(picked), rowOf(pairOf(teacher, student))];
  rows[0].classList.add("kept");
  at("picked").querySelector("tbody").replaceChildren(...rows);
  at("picked").querySelector("p").textContent = [student, teacher].map((model) => zoo.models[model].reference).join("  ←  ");
}
at("unpick").addEventListener("click", () => { if (picked >= 0) pick(picked); });

// A model is kept whose name or reference has each word in it.
function matching(input) {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  return zoo.models.map((model) => {
    const within = `${model.name} ${model.reference}`.toLowerCase();
    return words.every((word) => within.includes(word));
  });
}
let waiting = 0;
function filter() {
  waiting = 0;
  const students = matching(at("of-student")), teachers = matching(at("of-teacher"));
  for (let pair = 0; pair < pairs; pair++) kept[pair] = students[studentOf(pair)] && teachers[teacherOf(pair)] ? 1 : 0;
  [order, page] = [null, 0];
  list();
  for (const picture of pictures) picture.paint();
}
for (const id of ["of-student", "of-teacher"]) {
  at(id).addEventListener("input", () => { waiting ||= requestAnimationFrame(filter); });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { for (const picture of pictures) picture.paint(); });
list();
for (const picture of pictures) picture.redraw();
performance.mark("zoo drawn");
})();
