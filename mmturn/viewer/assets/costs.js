// Where the time of a run's updates went, and what they did more than once.

const SHADES = [100, 74, 54, 38, 26, 18];
const LOOSE = 5;

// Seconds of each finer stage, and of what is left of a stage, in the order of the stages. A stage with parts has a
// colour of its own, in shades; those without share one.
function segmentsOf(rows) {
  const stages = new Map();
  for (const row of rows) {
    for (const [stage, seconds] of Object.entries(row.seconds)) {
      if (!stages.has(stage)) stages.set(stage, { whole: new Map(), parts: new Map() });
      const found = stages.get(stage);
      const finer = Object.hasOwn(row.parts, stage) ? Object.entries(row.parts[stage]) : [];
      found.whole.set(row.update, seconds);
      for (const [part, value] of finer) {
        if (!found.parts.has(part)) found.parts.set(part, new Map());
        found.parts.get(part).set(row.update, value);
      }
    }
  }
  const segments = [];
  let colour = 0;
  let loose = 0;
  for (const [stage, { whole, parts }] of stages) {
    if (!parts.size) {
      segments.push({ stage, name: stage, inner: false, values: whole, tone: toneOf(LOOSE, loose++) });
      continue;
    }
    const rest = new Map(whole);
    let shade = 0;
    for (const [name, values] of parts) {
      segments.push({ stage, name, inner: true, values, tone: toneOf(colour, shade++) });
      for (const [update, value] of values) rest.set(update, Math.max(0, (rest.get(update) || 0) - value));
    }
    segments.push({ stage, name: "the rest", inner: true, values: rest, tone: toneOf(colour, shade) });
    colour = (colour + 1) % LOOSE;
  }
  return segments;
}

function toneOf(colour, shade) {
  return `color-mix(in srgb, var(--c${colour}) ${SHADES[Math.min(shade, SHADES.length - 1)]}%, var(--sheet))`;
}

function toned(node, tone) {
  node.style.setProperty("--tone", tone);
  return node;
}

function toneSwatch(segment, name) {
  return el("span", "swatch", toned(el("i", "fill"), segment.tone), words("", name));
}

function meanOf(segment, rows) {
  return rows.reduce((total, row) => total + (segment.values.get(row.update) || 0), 0) / rows.length;
}

function shareText(share) {
  return share > 0 && share < 0.005 ? "<\u20091 %" : percent(share, 0);
}

function timeText(seconds) {
  return `${number(seconds, seconds < 10 ? 2 : 1)} s`;
}

function stack(segments, rows, total) {
  const bar = el("div", "stack");
  bar.setAttribute("role", "img");
  const said = [];
  for (const segment of segments) {
    const mean = meanOf(segment, rows);
    if (!mean) continue;
    const piece = toned(el("i", "fill"), segment.tone);
    piece.style.flexGrow = String(mean / total);
    const name = segment.inner ? `${segment.stage}: ${segment.name}` : segment.name;
    piece.title = `${name}, ${timeText(mean)}, ${shareText(mean / total)}`;
    said.push(piece.title);
    bar.append(piece);
  }
  bar.setAttribute("aria-label", `Mean seconds of an update: ${said.join("; ")}`);
  return bar;
}

function timeTable(segments, rows, total) {
  const body = el("tbody", "");
  const line = (className, name, seconds) => {
    const share = total ? shareText(seconds / total) : "–";
    body.append(el("tr", className, el("td", "", name), el("td", "figure", timeText(seconds)), el("td", "figure", share)));
  };
  let last = null;
  for (const segment of segments) {
    if (segment.inner && segment.stage !== last) {
      const whole = segments.filter((other) => other.stage === segment.stage);
      line("whole", words("", segment.stage), whole.reduce((sum, other) => sum + meanOf(other, rows), 0));
    }
    last = segment.stage;
    line(segment.inner ? "inner" : "whole", toneSwatch(segment, segment.name), meanOf(segment, rows));
  }
  line("whole", "in all", total);
  const head = el("tr", "", el("th", "", "stage"), el("th", "figure", "an update"), el("th", "figure", "share"));
  return el("div", "scroll", el("table", "costs", el("thead", "", head), body));
}

function count(value) {
  return value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 });
}

function workTable(work) {
  const rows = work.map(({ name, done, needed }) => {
    const ratio = done / Math.max(needed, 1);
    return el("tr", ratio > 1.05 ? "again" : "", el("td", "", words("", name)), el("td", "figure", count(done)),
      el("td", "figure", count(needed)), el("td", "figure ratio", `${number(ratio)}×`));
  });
  const head = el("tr", "", el("th", "", "an update's work"), el("th", "figure", "done"), el("th", "figure", "needed"), el("th", "figure", "ratio"));
  return el("div", "scroll", el("table", "costs", el("thead", "", head), el("tbody", "", ...rows)));
}

// A thin bar for each update; its seconds under the pointer.
function updateBars(segments, rows) {
  const [holder, plot] = frame("Seconds of each update", []);
  const xs = rows.map((row) => row.update);
  const sum = (x) => segments.reduce((total, segment) => total + (segment.values.get(x) || 0), 0);
  const high = Math.max(...xs.map(sum), 1e-9);
  const half = xs.length > 1 ? (Math.max(...xs) - Math.min(...xs)) / (2 * (xs.length - 1)) : 0.5;
  const place = plane([Math.min(...xs) - half, Math.max(...xs) + half], 0, high);
  const root = svg("svg", { viewBox: `0 0 ${SHAPE.width} ${SHAPE.height}`, role: "img", "aria-label": "Seconds of each update by stage" });
  axes(root, place, 0, high, "s");
  const wide = Math.min(40, Math.max(0.6, ((SHAPE.width - SHAPE.left - SHAPE.right) / xs.length) * 0.82));
  for (const x of xs) {
    let base = 0;
    for (const segment of segments) {
      const value = segment.values.get(x) || 0;
      if (!value) continue;
      const box = { x: place.x(x) - wide / 2, y: place.y(base + value), width: wide, height: place.y(base) - place.y(base + value) };
      root.append(toned(svg("rect", { class: "fill", ...box }), segment.tone));
      base += value;
    }
  }
  follow(plot, root, xs, place, (x) => {
    const shown = segments.filter((segment) => (segment.values.get(x) || 0) > 0.02 * sum(x));
    const list = shown.map((segment) => {
      const name = segment.inner ? `${segment.stage}: ${segment.name}` : segment.name;
      return el("div", "", toneSwatch(segment, name), el("b", "", timeText(segment.values.get(x))));
    });
    return [...list, el("div", "", el("span", "key", "in all"), el("b", "", timeText(sum(x))))];
  });
  return holder;
}

function costSection(costs) {
  const rows = costs.seconds;
  const segments = segmentsOf(rows);
  const total = segments.reduce((sum, segment) => sum + meanOf(segment, rows), 0);
  const block = el("section", "", el("h2", "", "Where the time goes"));
  if (rows.length) {
    const updates = rows.length === 1 ? "1 update" : `${rows.length} updates`;
    block.append(el("p", "note", `${timeText(total)} an update, the mean of ${updates}`), stack(segments, rows, total));
  }
  const columns = el("div", "columns");
  if (rows.length) columns.append(timeTable(segments, rows, total));
  const side = el("div", "beside");
  if (costs.work.length) side.append(workTable(costs.work));
  if (Object.keys(costs.facts).length) side.append(factRows(costs.facts));
  if (rows.length) side.append(updateBars(segments, rows));
  columns.append(side);
  block.append(columns);
  return block;
}
