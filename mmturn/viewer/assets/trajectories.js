// One trajectory as a card: turns with views, boxes, text or tokens, rewards and advantages.

// A link that ends in #tokens opens the page with its tokens shown.
const show = { tokens: location.hash === "#tokens", colour: "advantage", gold: true };

function chip(className, text) {
  return words(`chip ${className}`, text);
}

function outcome(item) {
  if (item.status === "failed") return ["failed", "failed"];
  if (item.right === null) return ["unknown", item.status];
  return item.right ? ["right", "right"] : ["wrong", "wrong"];
}

function mark(data, view) {
  const [x0, y0, x1, y1] = data.at;
  const group = svg("g", { class: `mark ${data.kind}` });
  const tip = svg("title", {});
  tip.textContent = `${data.label}  [${data.at.map((value) => number(value, 0)).join(", ")}]`;
  if (data.at.length === 2) {
    const radius = Math.max(view.width, view.height) / 40;
    group.append(svg("circle", { cx: x0, cy: y0, r: radius }), tip);
  } else {
    const box = { x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0) };
    if (data.kind === "asked") group.append(svg("rect", { ...box, class: "halo" }));
    group.append(svg("rect", box), tip);
  }
  return group;
}

function figure(view) {
  const frame = el("div", "frame");
  frame.style.aspectRatio = `${view.width} / ${view.height}`;
  if (view.picture === null) {
    frame.append(el("span", "gone", "image not stored"));
  } else {
    const image = el("img", "");
    image.alt = `view of ${view.width} × ${view.height} pixels`;
    image.width = view.width;
    image.height = view.height;
    whenNear(frame, () => {
      image.onload = () => image.classList.toggle("coarse", image.naturalWidth <= 200);
      image.src = pictureUrl(view.picture);
    });
    frame.append(image);
  }
  if (view.marks.length) {
    const overlay = svg("svg", { viewBox: `0 0 ${view.width} ${view.height}`, preserveAspectRatio: "none" });
    overlay.append(...view.marks.map((item) => mark(item, view)));
    frame.append(overlay);
  }
  const [x0, y0, x1, y1] = view.region;
  const whole = x0 <= 0 && y0 <= 0 && x1 >= view.source[0] && y1 >= view.source[1];
  const from = whole
    ? `all of ${view.source[0]} × ${view.source[1]}`
    : `${number(x1 - x0, 0)} × ${number(y1 - y0, 0)} of ${view.source[0]} × ${view.source[1]}`;
  const place = `[${view.region.map((value) => number(value, 0)).join(", ")}]`;
  const size = `${view.width} × ${view.height} px · ${from}`;
  const caption = el("figcaption", "", view.second === null ? size : clock(view.second));
  caption.title = `${size}, source pixels ${place}`;
  const small = Math.max(view.width, view.height) < 100;
  return el("figure", small ? "small" : "", frame, caption);
}

// Frames of a video stand side by side; images, which are looked at one by one, below each other.
function figures(views) {
  const strip = views.filter((view) => view.second !== null).length > 1;
  return el("div", strip ? "views strip" : "views", ...views.map(figure));
}

const KINDS = { t: "template", o: "observation", i: "image", s: "sampled", p: "said, not trained" };

function tokenTitle(run, index, advantage) {
  const lines = [KINDS[run.kind] || run.kind];
  if (run.logprobs && run.logprobs[index] !== null) {
    lines.push(`log-prob ${number(run.logprobs[index], 4)} (p ${number(Math.exp(run.logprobs[index]), 3)})`);
  }
  if (advantage !== null) lines.push(`advantage ${signed(advantage, 3)}`);
  return lines.join(" · ");
}

// Strength 0..1 of a sampled token's colour, and which colour.
function tint(run, index, advantage, scale) {
  if (show.colour === "logprob") {
    const value = run.logprobs ? run.logprobs[index] : null;
    return value === null ? ["", 0] : ["odd", Math.min(1, -value / 3)];
  }
  if (advantage === null || scale === 0) return ["", 0];
  return [advantage >= 0 ? "good" : "bad", Math.min(1, Math.abs(advantage) / scale)];
}

function tokens(turn, scale) {
  const holder = el("div", "tokens");
  for (const run of turn.tokens) {
    if (run.texts) {
      run.texts.forEach((text, index) => {
        const [colour, strength] = tint(run, index, turn.advantage, scale);
        const token = words(`token s ${colour}`, text);
        token.style.setProperty("--strength", strength.toFixed(3));
        token.title = tokenTitle(run, index, turn.advantage);
        holder.append(token);
      });
    } else {
      const label = KINDS[run.kind] || run.kind;
      const text = run.text === undefined ? `${label} × ${run.count}` : run.text;
      const token = words(`token ${["t", "o", "i"].includes(run.kind) ? run.kind : "t"}`, text);
      token.title = `${label}, ${run.count} tokens`;
      holder.append(token);
    }
  }
  return holder;
}

function actionLine(action) {
  const line = el("div", "action");
  line.append(words("tool", action.name));
  for (const [key, value] of Object.entries(action.arguments)) {
    line.append(words("key", key), words("value", JSON.stringify(value)));
  }
  if (action.view !== null) line.append(el("span", "key", `on view ${action.view + 1}`));
  return line;
}

function fact(name, value, className = "") {
  return el("span", `fact ${className}`, el("span", "key", name), value);
}

function shownPart(data, title, open) {
  const part = el("details", data.refused ? "shown refused" : "shown");
  part.open = open;
  part.append(el("summary", "", title), longWords("", data.shown));
  if (data.views.length) part.append(figures(data.views));
  return part;
}

// Where the policy sees another past than the turn before saw.
function contextLine(anew) {
  const known = [[anew.tokens, "token"], [anew.images, "image"]].filter(([count]) => count !== null);
  const sizes = known.map(([count, name]) => `${count.toLocaleString("en")} ${name}${count === 1 ? "" : "s"}`);
  return el("div", "anew", ["context begins anew", ...sizes].join(" · "));
}

function turnPart(turn, k, scale, several) {
  const part = el("section", "turn");
  if (turn.anew !== null) part.append(contextLine(turn.anew));
  if (turn.unseen !== null) part.append(shownPart(turn.unseen, "discarded before it was seen", false));
  const facts = el("div", "facts");
  facts.append(el("b", "", `Turn ${k + 1}`));
  if (several || turn.seat !== "policy") facts.append(fact("seat", words("", turn.seat)));
  if (turn.reward !== null) facts.append(fact("reward", number(turn.reward)));
  if (turn.advantage !== null) {
    facts.append(fact("advantage", signed(turn.advantage), turn.advantage >= 0 ? "good" : "bad"));
  }
  if (turn.finish !== "stop") facts.append(fact("finish", turn.finish, "bad"));
  if (turn.purpose !== "act") facts.append(fact("asked for", words("", turn.purpose)));
  part.append(facts);
  if (turn.views.length) part.append(figures(turn.views));
  if (turn.shown.trim() && !(show.tokens && turn.tokens)) {
    part.append(shownPart({ ...turn, views: [] }, turn.refused ? "the action was refused" : "text shown", turn.refused));
  }
  if (show.tokens && turn.tokens) part.append(tokens(turn, scale));
  else part.append(turn.text === "" ? el("div", "said empty", "empty reply") : el("div", "said", longWords("", turn.text)));
  part.append(...turn.actions.filter((action) => action.kind !== "answer").map(actionLine));
  if (turn.error !== null) part.append(el("div", "error", longWords("", turn.error)));
  return part;
}

function details(item) {
  const list = el("dl", "meta");
  const add = (key, value) => list.append(el("dt", "", words("", key)), el("dd", "", words("", value)));
  add("id", item.id);
  add("seed", item.seed);
  for (const [key, value] of Object.entries(item.meta)) add(key, typeof value === "string" ? value : JSON.stringify(value));
  return el("details", "shown", el("summary", "", "how it was sampled"), list);
}

function card(item, scale) {
  const [kind, word] = outcome(item);
  const head = el("header", "");
  if (item.label !== null) head.append(chip("label", item.label));
  head.append(chip(kind, word), el("span", "key", `#${item.index}`), words("key", item.stop));
  if (item.reward !== null) {
    const total = el("span", "total", number(item.reward.total));
    total.title = "reward";
    head.append(total);
  }
  const node = el("article", `card ${kind}`, head);
  if (item.reward !== null) {
    const parts = Object.entries(item.reward.components);
    if (parts.length) node.append(el("div", "parts", ...parts.map(([name, value]) => fact(words("", name), number(value)))));
  }
  if (item.error !== null) node.append(el("div", "error", longWords("", item.error)));
  if (item.timeline !== null) node.append(timeline(item.timeline));
  const several = new Set(item.turns.map((turn) => turn.seat)).size > 1;
  item.turns.forEach((turn, k) => node.append(turnPart(turn, k, scale, several)));
  if (!item.turns.length) node.append(el("div", "said empty", "no turns"));
  const given = el("footer", "", el("span", "key", "answer"));
  given.append(item.answer === null ? el("span", "none", "none") : words("value", item.answer.slice(0, 2000)));
  node.append(given, details(item));
  return node;
}
