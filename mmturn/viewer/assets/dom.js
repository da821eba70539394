// Elements and pictures. Text only ever becomes a text node; nothing here parses markup.

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function el(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

function svg(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  node.append(...children);
  return node;
}

// Text of a model or dataset: kept apart from its surroundings whatever direction marks it holds.
function words(className, text) {
  const node = el("bdi", className);
  node.textContent = text;
  return node;
}

function button(label, className, action) {
  const node = el("button", className, label);
  node.type = "button";
  node.addEventListener("click", action);
  return node;
}

const LONG = 6000;

function longWords(className, text) {
  if (text.length <= LONG) return words(className, text);
  const holder = el("div", "");
  const part = words(className, text.slice(0, LONG) + " …");
  const more = button(`Show all ${text.length.toLocaleString("en")} characters`, "link", () => {
    part.textContent = text;
    more.remove();
  });
  holder.append(part, more);
  return holder;
}

function number(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value) >= 1e5 ? value.toExponential(2) : value.toFixed(digits);
  return text.replace("-", "\u2212");
}

function signed(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  return (value > 0 ? "+" : "") + number(value, digits);
}

function percent(value, digits = 1) {
  return value === null || value === undefined ? "–" : `${number(100 * value, digits)} %`;
}

// Pictures wait as base64 in inert blocks; one is decoded when its place comes near the screen.
function pictureUrl(index) {
  const block = document.getElementById(`picture-${index}`);
  return `data:${block.type};base64,${block.textContent}`;
}

const waiting = new Map();
const NEAR_PX = { x: 600, y: 900 };
const watcher = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => act(entry.target)),
  { rootMargin: `${NEAR_PX.y}px ${NEAR_PX.x}px` },
);

function act(node) {
  const action = waiting.get(node);
  if (!action) return;
  waiting.delete(node);
  watcher.unobserve(node);
  action();
}

// Runs the action once, when the node comes near the screen.
function whenNear(node, action) {
  waiting.set(node, action);
  watcher.observe(node);
}

// What is near the screen as the page opens is there at once, and not only when the first frame was drawn; what comes
// with it (the pictures of a card) too.
function showNear() {
  const isNear = (node) => {
    const { left, top, right, bottom } = node.getBoundingClientRect();
    const across = left < innerWidth + NEAR_PX.x && right > -NEAR_PX.x;
    return across && top < innerHeight + NEAR_PX.y && bottom > -NEAR_PX.y;
  };
  let near;
  do {
    near = [...waiting.keys()].filter(isNear);
    near.forEach(act);
  } while (near.length);
}
