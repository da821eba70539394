// Line charts and interval plots as SVG, with the values under the pointer.

const COLOURS = 6;

function ticks(low, high, count = 4) {
  const span = high - low || 1;
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((value) => value >= rough) || rough;
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-6; value += step) found.push(value);
  return found;
}

function axisText(value, unit) {
  if (unit === "share") return `${Math.round(100 * value)} %`;
  if (Math.abs(value) >= 1000) return number(value, 0);
  return number(value, 3).replace(/\.?0+$/, "") || "0";
}

function fullText(value, unit) {
  if (value === null || value === undefined) return "–";
  return unit === "share" ? percent(value) : unit === "s" ? `${number(value, 2)} s` : number(value, 4);
}

const SHAPE = { width: 420, height: 190, left: 46, right: 10, top: 10, bottom: 26 };

function plane(xs, low, high) {
  const { width, height, left, right, top, bottom } = SHAPE;
  const first = Math.min(...xs);
  const last = Math.max(...xs);
  const x = (value) => left + ((value - first) / (last - first || 1)) * (width - left - right);
  const y = (value) => height - bottom - ((value - low) / (high - low || 1)) * (height - top - bottom);
  return { x, y, first, last };
}

function axes(root, place, low, high, unit) {
  const { width, height, left, right, bottom } = SHAPE;
  for (const value of ticks(low, high)) {
    root.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: place.y(value), y2: place.y(value) }));
    const text = svg("text", { class: "tick", x: left - 6, y: place.y(value) + 4, "text-anchor": "end" });
    text.textContent = axisText(value, unit);
    root.append(text);
  }
  for (const value of ticks(place.first, place.last, 5)) {
    if (!Number.isInteger(value)) continue;
    const text = svg("text", { class: "tick", x: place.x(value), y: height - bottom + 17, "text-anchor": "middle" });
    text.textContent = axisText(value, "number");
    root.append(text);
  }
}

// A readout that follows the pointer from one x value to the next.
function follow(holder, root, xs, place, lines) {
  const rule = svg("line", { class: "rule", y1: SHAPE.top, y2: SHAPE.height - SHAPE.bottom });
  const readout = el("div", "readout");
  readout.hidden = true;
  rule.setAttribute("visibility", "hidden");
  root.append(rule);
  const move = (event) => {
    const box = root.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * SHAPE.width;
    const nearest = xs.reduce((best, x) => (Math.abs(place.x(x) - at) < Math.abs(place.x(best) - at) ? x : best), xs[0]);
    rule.setAttribute("x1", place.x(nearest));
    rule.setAttribute("x2", place.x(nearest));
    rule.setAttribute("visibility", "visible");
    readout.replaceChildren(el("div", "key", `update ${nearest}`), ...lines(nearest));
    readout.hidden = false;
    const right = place.x(nearest) > SHAPE.width * 0.6;
    readout.style.left = right ? "" : `${(100 * place.x(nearest)) / SHAPE.width + 2}%`;
    readout.style.right = right ? `${102 - (100 * place.x(nearest)) / SHAPE.width}%` : "";
  };
  root.addEventListener("pointermove", move);
  root.addEventListener("pointerdown", move);
  root.addEventListener("pointerleave", () => {
    readout.hidden = true;
    rule.setAttribute("visibility", "hidden");
  });
  holder.append(root, readout);
}

function swatch(index, name) {
  return el("span", "swatch", el("i", `fill c${index % COLOURS}`), words("", name));
}

function frame(title, names) {
  const holder = el("figure", "chart");
  const caption = el("figcaption", "", words("", title));
  if (names.length > 1) caption.append(el("span", "names", ...names.map((name, i) => swatch(i, name))));
  const plot = el("div", "plot");
  holder.append(caption, plot);
  return [holder, plot];
}

function lineChart(curve) {
  const names = Object.keys(curve.lines);
  const points = names.map((name) => curve.lines[name].filter((point) => point[1] !== null));
  const all = points.flat();
  const [holder, plot] = frame(curve.title, names);
  if (!all.length) {
    plot.append(el("p", "nothing", "No value yet"));
    return holder;
  }
  const xs = [...new Set(all.map((point) => point[0]))].sort((a, b) => a - b);
  let low = Math.min(...all.map((point) => point[1]));
  let high = Math.max(...all.map((point) => point[1]));
  if (curve.unit === "share") [low, high] = [0, 1];
  else if (low >= 0 && low < 0.6 * high) low = 0;
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const place = plane(xs, low, high);
  const root = svg("svg", { viewBox: `0 0 ${SHAPE.width} ${SHAPE.height}`, role: "img" });
  const last = points.map((line, i) => (line.length ? `${names[i]} ${fullText(line.at(-1)[1], curve.unit)}` : names[i]));
  root.setAttribute("aria-label", `${curve.title} over updates, last: ${last.join(", ")}`);
  axes(root, place, low, high, curve.unit);
  points.forEach((line, i) => {
    const path = line.map((point, j) => `${j ? "L" : "M"}${place.x(point[0]).toFixed(1)} ${place.y(point[1]).toFixed(1)}`);
    root.append(svg("path", { class: `line c${i % COLOURS}`, d: path.join("") }));
    if (line.length <= 12) {
      line.forEach((p) => root.append(svg("circle", { class: `fill c${i % COLOURS}`, cx: place.x(p[0]), cy: place.y(p[1]), r: 3 })));
    }
  });
  follow(plot, root, xs, place, (x) =>
    names.map((name, i) => {
      const found = points[i].find((point) => point[0] === x);
      const value = el("b", "", fullText(found ? found[1] : null, curve.unit));
      return el("div", "", names.length > 1 ? swatch(i, name) : "", value);
    }),
  );
  return holder;
}

// A dot on its interval, on an axis from 0 to 1.
function whisker(value, interval, colour = 0) {
  const root = svg("svg", { class: "whisker", viewBox: "0 0 200 16", preserveAspectRatio: "none", "aria-hidden": "true" });
  root.append(svg("line", { class: "grid", x1: 0, x2: 200, y1: 8, y2: 8 }));
  const at = (share) => 200 * Math.max(0, Math.min(1, share));
  if (interval) {
    const [low, high] = [at(interval.low), at(interval.high)];
    root.append(svg("rect", { class: `band c${colour}`, x: low, y: 4, width: Math.max(high - low, 1), height: 8 }));
  }
  if (value !== null && value !== undefined) {
    root.append(svg("rect", { class: `fill c${colour}`, x: at(value) - 1.2, y: 1, width: 2.4, height: 14 }));
  }
  return root;
}
