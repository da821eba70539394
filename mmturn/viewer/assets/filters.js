// Sections of groups, filtered and sorted; a group's cards are built when it comes near the screen.

const sections = data.sections.map((section, s) => ({
  ...section,
  groups: section.groups.map((group, g) => ({
    ...group,
    task: data.tasks[group.task],
    items: group.items.map((item, i) => ({ ...item, task: data.tasks[item.task], order: i })),
    order: g,
    key: `${s}-${g}`,
    node: null,
    built: "",
  })),
}));
const everything = sections.flatMap((section) => section.groups.flatMap((group) => group.items));

function haystack(item) {
  if (item.hay === undefined) {
    const texts = [item.id, item.task.id, item.task.question, ...item.task.choices, item.answer, item.error, item.stop];
    for (const turn of item.turns) texts.push(turn.text, turn.shown, turn.error);
    item.hay = texts.filter((text) => typeof text === "string").join("\n").toLowerCase();
  }
  return item.hay;
}

const wanted = { outcome: "", level: "", stop: "", tool: "", label: "", text: "", sort: "order" };

function passes(item) {
  if (wanted.outcome && outcome(item)[0] !== wanted.outcome) return false;
  if (wanted.level && item.task.level !== wanted.level.slice(1)) return false;
  if (wanted.stop && item.stop !== wanted.stop.slice(1)) return false;
  if (wanted.label && item.label !== wanted.label.slice(1)) return false;
  if (wanted.tool === "none" && item.tools.length) return false;
  if (wanted.tool && wanted.tool !== "none" && !item.tools.includes(wanted.tool.slice(1))) return false;
  return !wanted.text || haystack(item).includes(wanted.text);
}

const MEASURES = {
  reward: (item) => (item.reward === null ? -Infinity : item.reward.total),
  turns: (item) => item.turns.length,
  length: (item) => item.length,
};

function mean(values) {
  const finite = values.filter(Number.isFinite);
  return finite.length ? finite.reduce((sum, value) => sum + value, 0) / finite.length : -Infinity;
}

// Descending and stable; "-name" ascends. Ties keep the order of the file.
function sorted(list, value) {
  const sign = wanted.sort.startsWith("-") ? 1 : -1;
  const keyed = list.map((entry) => [value(entry), entry]);
  keyed.sort((a, b) => (a[0] === b[0] ? a[1].order - b[1].order : sign * (a[0] < b[0] ? -1 : 1)));
  return keyed.map((pair) => pair[1]);
}

function visible(group) {
  const items = group.items.filter(passes);
  const measure = MEASURES[wanted.sort.replace("-", "")];
  return measure ? sorted(items, measure) : items;
}

function groupHead(group, items) {
  const task = group.task;
  const head = el("div", "ask");
  const top = el("div", "keys", words("key", task.id));
  if (task.level !== null) top.append(chip("", `level ${task.level}`));
  head.append(top, el("h3", "", longWords("", task.question)));
  if (task.choices.length) {
    const list = el("ul", "choices");
    task.choices.forEach((choice, i) => {
      const letter = String.fromCharCode(65 + i);
      list.append(el("li", letter === task.answer ? "gold" : "", el("b", "", letter), words("", choice)));
    });
    head.append(list);
  } else if (task.answer !== null) {
    head.append(el("div", "gold-answer", el("span", "key", "gold answer"), words("value", task.answer)));
  }
  const dots = el("div", "dots");
  items.forEach((item, i) => {
    const dot = button("", `dot ${outcome(item)[0]}`, () => {
      group.node.querySelectorAll(".card")[i]?.scrollIntoView({ behavior: "smooth", inline: "center", block: "nearest" });
    });
    dot.title = `${item.label === null ? "" : `${item.label}, `}#${item.index}: ${outcome(item)[1]}`;
    dot.setAttribute("aria-label", dot.title);
    dots.append(dot);
  });
  if (items.length > 1) top.append(dots);
  return head;
}

function drawGroup(group, items) {
  if (!group.node) {
    group.node = el("section", "group");
    group.node.style.minHeight = "30rem";
  }
  const state = `${items.map((item) => item.order).join()}|${show.tokens}|${show.colour}`;
  if (group.built === state) return group.node;
  group.built = state;
  const row = el("div", "row");
  group.node.replaceChildren(groupHead(group, items), row);
  whenNear(group.node, () => {
    const advantages = group.items.flatMap((item) => item.turns.map((turn) => Math.abs(turn.advantage ?? 0)));
    const scale = advantages.reduce((most, value) => Math.max(most, value), 0);
    row.replaceChildren(...items.map((item) => card(item, scale)));
    row.style.setProperty("--count", String(items.length));
    group.node.style.minHeight = "";
  });
  return group.node;
}

function apply() {
  let count = 0;
  for (const section of sections) {
    const pairs = section.groups.map((group) => ({ group, items: visible(group), order: group.order }));
    const some = pairs.filter((pair) => pair.items.length);
    const measure = MEASURES[wanted.sort.replace("-", "")];
    const ordered = measure ? sorted(some, (pair) => mean(pair.items.map(measure))) : some;
    section.holder.replaceChildren(...ordered.map((pair) => drawGroup(pair.group, pair.items)));
    section.block.hidden = !some.length && section.groups.length > 0;
    count += some.reduce((sum, pair) => sum + pair.items.length, 0);
  }
  const all = everything.length;
  counter.textContent = count === all ? `${all} trajectories` : `${count} of ${all} trajectories`;
  nothing.hidden = count > 0 || all === 0;
}

const counter = el("span", "count");
const nothing = el("p", "nothing", "No trajectory passes these filters.");

function select(name, options) {
  const node = el("select", "");
  node.setAttribute("aria-label", name);
  for (const [value, label] of options) {
    const option = el("option", "", label);
    option.value = value;
    node.append(option);
  }
  node.addEventListener("change", () => {
    wanted[name] = node.value;
    apply();
  });
  return node;
}

// Values that occur, each with a leading "=" so that no value of the data can be mistaken for a setting.
function choicesOf(values, all) {
  const found = [...new Set(values.filter((value) => value !== null))];
  found.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  return [["", all], ...found.map((value) => [`=${value}`, value])];
}

function toggle(label, isOn, action) {
  const box = el("input", "");
  box.type = "checkbox";
  box.checked = isOn;
  box.addEventListener("change", () => action(box.checked));
  return el("label", "toggle", box, label);
}

function toolbar() {
  const bar = el("div", "bar");
  const search = el("input", "search");
  search.type = "search";
  search.placeholder = "Search text";
  search.setAttribute("aria-label", "search text");
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      wanted.text = search.value.toLowerCase();
      apply();
    }, 120);
  });
  const outcomes = [["", "Any outcome"], ["right", "Right"], ["wrong", "Wrong"], ["failed", "Failed"]];
  const filters = [select("outcome", outcomes)];
  const add = (name, options, least = 2) => options.length > least && filters.push(select(name, options));
  add("level", choicesOf(everything.map((item) => item.task.level), "Any level"));
  add("stop", choicesOf(everything.map((item) => item.stop), "Any ending"));
  add("tool", [...choicesOf(everything.flatMap((item) => item.tools), "Any tool"), ["none", "No tool"]]);
  add("label", choicesOf(everything.map((item) => item.label), "Any run"));
  const orders = [["order", "In order"], ["reward", "Reward, high first"], ["-reward", "Reward, low first"]];
  orders.push(["turns", "Most turns"], ["-turns", "Fewest turns"], ["length", "Longest"], ["-length", "Shortest"]);
  filters.push(select("sort", orders));
  const looks = el("div", "looks");
  const strokes = [["asked", "asked for"], ["done", "shown instead"]];
  looks.append(...strokes.map(([kind, label]) => el("span", "key-mark", el("i", kind), label)));
  looks.append(toggle(el("span", "key-mark", el("i", "gold"), "gold"), show.gold, (on) => document.body.classList.toggle("hide-gold", !on)));
  const colour = select("colour", [["advantage", "by advantage"], ["logprob", "by log-prob"]]);
  colour.hidden = !show.tokens;
  colour.addEventListener("change", () => {
    show.colour = colour.value;
    apply();
  });
  if (everything.some((item) => item.turns.some((turn) => turn.tokens))) {
    const change = (on) => {
      show.tokens = on;
      colour.hidden = legend.hidden = !on;
      apply();
    };
    looks.append(toggle("Tokens", show.tokens, change), colour);
  }
  const legend = el("div", "legend tokens");
  legend.hidden = !show.tokens;
  for (const kind of ["t", "o", "i"]) legend.append(el("span", `token ${kind}`, KINDS[kind]));
  const shades = [["good", "advantage +"], ["bad", "advantage \u2212"], ["odd", "unlikely"]];
  for (const [shade, label] of shades) {
    const token = el("span", `token s ${shade}`, `sampled, ${label}`);
    token.style.setProperty("--strength", "0.7");
    legend.append(token);
  }
  const more = el("details", "more", el("summary", "", "Filter and sort"), el("div", "filters", ...filters));
  more.open = window.innerWidth >= 720;
  bar.append(search, more, looks, counter, legend);
  return bar;
}

function buildSections(page) {
  if (!everything.length) return;
  page.append(toolbar());
  for (const section of sections) {
    section.holder = el("div", "groups");
    section.block = el("section", "part");
    if (section.title) section.block.append(el("h2", "", words("", section.title)));
    if (section.note) section.block.append(el("p", "note", words("", section.note)));
    section.block.append(section.holder);
    page.append(section.block);
  }
  page.append(nothing);
  apply();
}
