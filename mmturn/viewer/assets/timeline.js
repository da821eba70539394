// The time line of a video: a row per turn with the frames it was shown, the stretch it asked for, and the gold stretches.

const LINE = { width: 600, row: 18, left: 54, bottom: 18 };

function clock(seconds) {
  const whole = Math.floor(seconds);
  const pad = (value) => String(value).padStart(2, "0");
  const rest = seconds - whole;
  return `${pad(Math.floor(whole / 60))}:${pad(whole % 60)}` + (rest >= 0.05 ? rest.toFixed(1).slice(1) : "");
}

function timeline(line) {
  const height = line.turns.length * LINE.row, span = Math.max(line.seconds, 1e-6);
  const at = (second) => LINE.left + (second / span) * (LINE.width - LINE.left - 6);
  const overlay = svg("svg", { viewBox: `0 0 ${LINE.width} ${height + LINE.bottom}`, role: "img" });
  overlay.setAttribute("aria-label", "frames seen by turn, on the time line of the video");
  const tip = (node, text) => {
    const title = svg("title", {});
    title.textContent = text;
    node.append(title);
    return node;
  };
  for (const [start, end] of line.gold) {
    const width = Math.max(at(end) - at(start), 2);
    const band = svg("rect", { class: "gold", x: at(start), y: 0, width, height });
    overlay.append(tip(band, `gold ${clock(start)} to ${clock(end)}`));
  }
  line.turns.forEach((turn, k) => {
    const y = k * LINE.row, name = svg("text", { x: 0, y: y + 13 });
    name.textContent = `turn ${k + 1}`;
    overlay.append(name, svg("line", { class: "rail", x1: LINE.left, x2: LINE.width - 6, y1: y + 9, y2: y + 9 }));
    for (const [start, end] of turn.asked) {
      const width = Math.max(at(end) - at(start), 2);
      const bar = svg("rect", { class: "asked", x: at(start), y: y + 11, width, height: 5 });
      overlay.append(tip(bar, `turn ${k + 1} asked for ${clock(start)} to ${clock(end)}`));
    }
    for (const second of turn.frames) {
      const tick = svg("line", { class: "seen", x1: at(second), x2: at(second), y1: y + 3, y2: y + 13 });
      overlay.append(tip(tick, `turn ${k + 1}: frame at ${clock(second)}`));
    }
  });
  for (const part of [0, 0.5, 1]) {
    const anchor = part === 0 ? "start" : part === 1 ? "end" : "middle";
    const label = svg("text", { x: at(part * span), y: height + 13, "text-anchor": anchor });
    label.textContent = clock(part * span);
    overlay.append(label);
  }
  return el("div", "timeline", overlay);
}
