// The head of a run's report: stages, accuracy before and after, tables, curves, costs.

function range(interval) {
  return interval ? `${percent(interval.low)} to ${percent(interval.high)}` : "";
}

function stageList(stages) {
  const list = el("ol", "stages");
  for (const stage of stages) {
    const item = el("li", stage.state, el("span", "name", words("", stage.name)));
    const note = [stage.note, stage.seconds === null ? "" : `${number(stage.seconds, 0)} s`].filter(Boolean).join(" · ");
    item.append(el("span", "key", words("", note || stage.state)));
    if (stage.fraction !== null && stage.state === "running") {
      const bar = el("span", "progress", el("i", ""));
      bar.firstChild.style.width = `${100 * Math.max(0, Math.min(1, stage.fraction))}%`;
      item.append(bar);
    }
    list.append(item);
  }
  return list;
}

function bigNumber(title, group, colour) {
  const box = el("div", "big", el("span", "key", words("", title)));
  const interval = group ? group.wilson || group.bootstrap : null;
  box.append(el("strong", "", group ? percent(group.accuracy) : "–"));
  box.append(el("span", "key", group ? `${range(interval)} (95 %), ${group.n} tasks` : "not measured yet"));
  if (group) box.append(whisker(group.accuracy, interval, colour));
  return box;
}

function verdict(comparison) {
  const { difference, mcnemar } = comparison;
  const box = el("div", "big", el("span", "key", "difference"));
  box.append(el("strong", "", signed(100 * difference.mean, 1), el("small", "", " points")));
  const parts = [];
  if (difference.interval) {
    parts.push(`${signed(100 * difference.interval.low, 1)} to ${signed(100 * difference.interval.high, 1)} (95 %, paired)`);
  }
  if (mcnemar) {
    const p = mcnemar.p_value < 1e-4 ? "p < 0.0001" : `p = ${number(mcnemar.p_value, 4)}`;
    parts.push(`${mcnemar.gained} tasks gained, ${mcnemar.lost} lost, ${p} (exact McNemar)`);
  }
  if (comparison.intervals_overlap === false) parts.push("the two intervals do not overlap");
  if (comparison.intervals_overlap === true) parts.push("the two intervals overlap");
  if (comparison.left_out) parts.push(`${comparison.left_out} samples failed in one run and are left out`);
  box.append(el("span", "key", parts.join("; ")));
  return box;
}

function table(head, rows) {
  const body = el("tbody", "");
  const cellOf = (cell) => el("td", cell instanceof SVGElement ? "plotted" : "", cell === "" ? "\u00a0" : cell);
  for (const row of rows) body.append(el("tr", "", ...row.map(cellOf)));
  const top = el("thead", "", el("tr", "", ...head.map((cell, i) => el("th", i && !cell ? "plotted" : "", cell || "\u00a0"))));
  return el("div", "scroll", el("table", "", top, body));
}

function numeric(a, b) {
  return a.localeCompare(b, "en", { numeric: true });
}

function breakdown(key, before, after) {
  const sides = [["before", before], ["after", after]].filter((side) => side[1] && side[1].by[key]);
  const values = [...new Set(sides.flatMap(([, report]) => Object.keys(report.by[key])))].sort(numeric);
  if (!values.length || (key === "crops" && values.join() === "0")) return null; // none has made a crop
  const head = [key === "crops" ? "crops made" : key];
  for (const [name] of sides) head.push(name, "", "tasks");
  const rows = values.map((value) => {
    const row = [words("", value)];
    sides.forEach(([name, report]) => {
      const group = report.by[key][value];
      if (!group) row.push("–", "", "0");
      else row.push(percent(group.accuracy), whisker(group.accuracy, group.wilson || group.bootstrap, name === "after" ? 1 : 0), String(group.n));
    });
    return row;
  });
  const block = el("section", "");
  block.append(el("h2", "", key === "crops" ? "By number of crops" : `By ${key}`), table(head, rows));
  return block;
}

function behaviour(before, after) {
  const sides = [["before", before], ["after", after]].filter((side) => side[1]);
  const line = (name, told) => [name, ...sides.map(([, report]) => told(report.overall))];
  const read = [...new Set(sides.flatMap(([, report]) => report.extractors))];
  const rows = [
    ...(sides.some(([, report]) => report.overall.mean_crops)
      ? [line("crops that contain a gold region", (g) => (g.crops ? `${percent(g.useful_crop_rate)} of ${g.crops}` : "–")),
        line("tasks in which some crop does", (g) => percent(g.useful_sample_rate)),
        line("crops per task", (g) => number(g.mean_crops))] : []),
    line("turns per task", (g) => number(g.mean_turns)),
    ...(sides.some(([, report]) => report.overall.mean_frames != null)
      ? [line("frames per task", (g) => number(g.mean_frames, 1)),
        line("gold stretches of which a frame was seen", (g) => percent(g.gold_seen_rate))] : []),
    ...(sides.some(([, report]) => report.overall.mean_delay_s != null)
      ? [line("seconds until an answer begins", (g) => number(g.mean_delay_s))] : []),
    line("sampled tokens per task", (g) => number(g.mean_sampled_tokens, 0)),
    ...(read.every((name) => name.startsWith("mmturn/world-")) && read.length ? [] // the world judges, no answer is read
      : [line("no answer could be read", (g) => `${g.unparsed} of ${g.n}`)]),
    line("ended by a limit", (g) => `${g.truncated} of ${g.n}`),
    line("failed, left out", (g) => `${g.num_failed} of ${g.n}`),
    line("accuracy, failed as wrong", (g) => percent(g.accuracy_failed_wrong)),
  ];
  const block = el("section", "", el("h2", "", "Where it looks"), table(["", ...sides.map((side) => side[0])], rows));
  if (read.length) block.append(el("p", "note", words("", `Answers read by ${read.join(", ")}.`)));
  return block;
}

function baselineTable(baselines) {
  const rows = baselines.map((entry, i) => [
    el("span", "", words("", entry.name), entry.note ? el("div", "key", words("", entry.note)) : ""),
    percent(entry.accuracy),
    whisker(entry.accuracy, entry.low === null || entry.high === null ? null : entry, i % COLOURS),
    entry.low === null || entry.high === null ? "–" : range(entry),
    entry.n === null ? "–" : String(entry.n),
  ]);
  const block = el("section", "", el("h2", "", "Beside other policies"));
  block.append(table(["policy", "accuracy", "", "95 % interval", "tasks"], rows));
  return block;
}

function factRows(facts) {
  const list = el("dl", "meta");
  for (const [key, value] of Object.entries(facts)) list.append(el("dt", "", words("", key)), el("dd", "", words("", value)));
  return list;
}

function buildReport(page, report) {
  if (report.stages.length) page.append(stageList(report.stages));
  const { before, after, comparison } = report;
  if (before || after) {
    const heads = el("div", "bigs", bigNumber("before", before && before.overall, 0), bigNumber("after", after && after.overall, 1));
    if (comparison) heads.append(verdict(comparison));
    page.append(heads);
  }
  if (report.curves.length) page.append(el("section", "", el("h2", "", "While it learns"), el("div", "charts", ...report.curves.map(lineChart))));
  const columns = el("div", "columns");
  if (before || after) {
    const keys = new Set([...Object.keys(before ? before.by : {}), ...Object.keys(after ? after.by : {})]);
    for (const key of [...keys].sort((a, b) => (a === "crops") - (b === "crops"))) {
      const block = breakdown(key, before, after);
      if (block) columns.append(block);
    }
    columns.append(behaviour(before, after));
  }
  if (report.baselines.length) columns.append(baselineTable(report.baselines));
  if (columns.childElementCount) page.append(columns);
  if (report.costs && (report.costs.seconds.length || report.costs.work.length)) page.append(costSection(report.costs));
  if (Object.keys(report.facts).length) page.append(el("section", "", el("h2", "", "How this was made"), factRows(report.facts)));
}
