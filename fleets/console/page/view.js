// Rows into tables, points into charts. Elements are kept and changed in place, so that focus, selection and scrolling stay where they are.

const SVG = "http://www.w3.org/2000/svg";

/** Makes an element; text is never taken for HTML. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A table whose rows are kept by key. Columns: {title, number?, cell(row, id) → text, element or [class, text], refresh?(cell, row)}. */
export class Table {
  constructor(columns, { sort = 0, down = false } = {}) {
    this.columns = columns;
    this.sort = sort;
    this.down = down;
    this.rows = new Map();
    this.body = make("tbody");
    this.heads = columns.map((column, index) => {
      const button = make("button", { type: "button", onclick: () => this.#sortBy(index) }, column.title);
      return make("th", { scope: "col", class: column.number ? "number" : "" }, column.title ? button : "");
    });
    this.element = make("table", {}, make("thead", {}, make("tr", {}, ...this.heads)), this.body);
  }

  show(rows, filter) {
    this.last = [rows, filter];
    const found = Object.entries(rows).filter(([id, row]) => !filter || matches(id, row, filter));
    const key = this.columns[this.sort].key ?? ((_, id) => id);
    found.sort(([a, one], [b, two]) => compare(key(one, a), key(two, b)) * (this.down ? -1 : 1) || compare(a, b));
    this.heads.forEach((head, index) =>
      head.setAttribute("aria-sort", index !== this.sort ? "none" : this.down ? "descending" : "ascending"),
    );
    const ids = new Set(found.map(([id]) => id));
    for (const [id, known] of this.rows) if (!ids.has(id)) (known.element.remove(), this.rows.delete(id));
    let place = this.body.firstElementChild;
    for (const [id, row] of found) {
      const known = this.rows.get(id) ?? this.#add(id);
      if (known.row !== row || this.columns.some((column) => column.moves)) this.#fill(known, row, id);
      if (known.element === place) place = place.nextElementSibling;
      else this.body.insertBefore(known.element, place);
    }
  }

  #add(id) {
    const cells = this.columns.map((column) => make("td", { class: [column.number && "number", column.class].filter(Boolean).join(" "), "data-title": column.title || false }));
    const known = { element: make("tr", { "data-id": id }, ...cells), cells, told: [], row: null };
    this.rows.set(id, known);
    return known;
  }

  #fill(known, row, id) {
    this.columns.forEach((column, index) => {
      const told = column.cell(row, id);
      if (told instanceof Element) {
        if (known.row === null) known.cells[index].replaceChildren(told);
        return void column.refresh?.(known.cells[index], row);
      }
      const [kind, text] = Array.isArray(told) ? told : ["", told];
      const shown = `${kind} ${text}`;
      if (known.told[index] === shown) return;
      known.told[index] = shown;
      known.cells[index].replaceChildren(kind ? make("span", { class: kind }, String(text)) : String(text));
    });
    known.row = row;
  }

  #sortBy(index) {
    this.down = this.sort === index ? !this.down : Boolean(this.columns[index].number);
    this.sort = index;
    this.show(...this.last);
  }
}

function matches(id, row, filter) {
  return `${id} ${Object.values(row).join(" ")}`.toLowerCase().includes(filter);
}

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  return a < b ? -1 : 1;
}

/** One small chart per series; the newest value beside its name. */
export class Charts {
  constructor(element) {
    this.element = element;
    this.charts = [];
  }

  show(series, points) {
    if (series.join() !== this.charts.map((chart) => chart.name).join()) {
      this.charts = series.map((name) => this.#add(name));
      this.element.replaceChildren(...this.charts.map((chart) => chart.figure));
    }
    this.charts.forEach((chart, index) => this.#draw(chart, points, index + 1));
  }

  #add(name) {
    const [output, most] = [make("output"), make("span", { class: "most" })];
    const [area, line] = ["area", "line"].map((kind) => {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", kind);
      return path;
    });
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    svg.append(area, line);
    return { name, output, most, area, line, svg, figure: make("figure", { class: "chart" }, make("figcaption", {}, name, most), output, svg) };
  }

  #draw(chart, points, column) {
    const values = points.map((point) => point[column] ?? null);
    const newest = values.at(-1) ?? null;
    const most = Math.max(...values.filter((value) => value !== null), 0);
    tell(chart.output, newest === null ? "–" : short(newest));
    tell(chart.most, most ? `max ${short(most)}` : "");
    const width = Math.max(60, values.length);
    const first = width - values.length;
    chart.svg.setAttribute("viewBox", `0 0 ${width} 100`);
    let [line, area] = ["", ""];
    for (const [from, run] of runs(values)) {
      const points = run.map((value, index) => `${first + from + index} ${(96 - (90 * value) / (most || 1)).toFixed(1)}`);
      line += `M${points.join("L")}`;
      area += `M${first + from} 100L${points.join("L")}L${first + from + run.length - 1} 100Z`;
    }
    chart.line.setAttribute("d", line);
    chart.area.setAttribute("d", area);
  }
}

/** Stretches without a gap, each with where it begins. */
function runs(values) {
  const found = [];
  values.forEach((value, index) => {
    if (value === null) return;
    if (index > 0 && values[index - 1] !== null) found.at(-1)[1].push(value);
    else found.push([index, [value]]);
  });
  return found;
}

/** Changes an element's text only if it is another. */
export function tell(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A number in few characters. */
export function short(value) {
  if (Math.abs(value) >= 10_000) return `${(value / 1000).toFixed(Math.abs(value) >= 100_000 ? 0 : 1)}k`;
  return Number.isInteger(value) ? String(value) : value.toFixed(Math.abs(value) < 1 ? 2 : 1);
}

/** How long ago a moment was, in words of two letters. */
export function ago(at, now = Date.now() / 1000) {
  if (at === null || at === undefined) return "–";
  const seconds = Math.max(0, Math.round(now - at));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** A length of time in seconds as people write it. */
export function lasting(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Number((seconds * 1000).toFixed(seconds < 0.01 ? 2 : 0))} ms`;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : `${(seconds / 60).toFixed(1)} min`;
}
