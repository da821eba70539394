"""report.html: an evaluation's numbers as one static page without scripts. Every text is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

Data = Mapping[str, Any]

_STYLE = """
:root{color-scheme:light dark;--ink:#1d2430;--soft:#5d6878;--line:#dfe3ea;--paper:#fff;--mark:#2f6fdf;--band:#cfdffb}
@media (prefers-color-scheme:dark){:root{--ink:#e7ebf2;--soft:#98a3b5;--line:#2d3543;--paper:#12161d;--mark:#7fa9ff;
--band:#2a3e66}}
*{box-sizing:border-box}
body{margin:0 auto;padding:2rem 1rem 4rem;max-width:60rem;font:15px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper);overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:2.2rem 0 .5rem}p{margin:.3rem 0;color:var(--soft)}
.big{font-size:2.6rem;font-weight:650;font-variant-numeric:tabular-nums;line-height:1.1;margin:1.4rem 0 .2rem;
color:var(--ink)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .7rem .35rem 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}th{font-weight:500;color:var(--soft);font-size:.85rem}
svg{display:block;width:9rem;height:14px}dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1.2rem}
dt{color:var(--soft)}dd{margin:0}code,pre{font:12.5px/1.5 ui-monospace,monospace}pre{white-space:pre-wrap}
"""


def report_page(report: Data) -> str:
    """The page of a report's JSON (see ``EvalReport.to_json``)."""
    info, overall = report["info"], report["overall"]
    title = f"{info['suite']}: evaluation"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>run {escape(info['run_id'])} · {escape(info['started'])}</p>",
        f'<p class="big">{_percent(overall["accuracy"])}</p>',
        f"<p>{_headline(overall)}. Read by {escape(', '.join(report['extractors']) or 'nothing')}.</p>",
        _group_table("Overall", {"all samples": overall}),
        *[_group_table(f"By {key}", groups, report["macro"].get(key)) for key, groups in report["by"].items()],
        _counts(report),
        _settings(info),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _headline(group: Data) -> str:
    words = [f"{group['n']} samples"]
    for name, text in (("wilson", "Wilson"), ("bootstrap", f"bootstrap over {group['num_clusters']} clusters")):
        interval = group[name]
        if interval is not None:
            words.append(f"{_percent(interval['low'])} to {_percent(interval['high'])} ({text})")
    if group["num_failed"]:
        words.append(
            f"{group['num_failed']} failed and are left out; counted as wrong, accuracy is "
            f"{_percent(group['accuracy_failed_wrong'])}"
        )
    return "; ".join(words)


def _bar(group: Data) -> str:
    """Accuracy as a tick on its interval, from 0 to 100 %."""
    interval = group["wilson"] or group["bootstrap"]
    if group["accuracy"] is None or interval is None:
        return ""
    low, high, at = (max(0.0, min(1.0, x)) * 100 for x in (interval["low"], interval["high"], group["accuracy"]))
    return (
        '<svg viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true">'
        '<rect x="0" y="6.5" width="100" height="1" style="fill:var(--line)"/>'
        f'<rect x="{low:.1f}" y="3" width="{max(high - low, 0.5):.1f}" height="8" rx="2" style="fill:var(--band)"/>'
        f'<rect x="{at - 0.6:.1f}" y="1" width="1.2" height="12" style="fill:var(--mark)"/></svg>'
    )


def _group_table(title: str, groups: Mapping[str, Data], macro: float | None = None) -> str:
    head: tuple[str, ...] = (
        "",
        "accuracy",
        "",
        "samples",
        "failed",
        "unparsed",
        "turns",
        "crops",
        "useful crops",
        "frames",
        "gold seen",
        "tokens",
    )
    streamed = any(group.get("mean_grade") is not None for group in groups.values())
    head = (*head, "grade", "coherence", "delay, s") if streamed else head
    rows = []
    for name, group in groups.items():
        useful = _percent(group["useful_crop_rate"]) if group["crops"] else "–"
        cells: tuple[str, ...] = (
            escape(str(name)),
            _percent(group["accuracy"]),
            _bar(group),
            str(group["n"]),
            str(group["num_failed"]),
            str(group["unparsed"]),
            _number(group["mean_turns"]),
            _number(group["mean_crops"]),
            useful,
            _number(group.get("mean_frames")),
            _percent(group.get("gold_seen_rate")),
            "–" if group["mean_sampled_tokens"] is None else f"{group['mean_sampled_tokens']:.0f}",
        )
        if streamed:
            cells = (*cells, *(_number(group.get(key)) for key in ("mean_grade", "coherence", "mean_delay_s")))
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    note = f"<p>Unweighted mean of these: {_percent(macro)}</p>" if macro is not None and len(groups) > 1 else ""
    header = "".join(f"<th>{cell}</th>" for cell in head)
    table = f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<h2>{escape(title)}</h2><div class="wide">{table}</div>{note}'


def _counts(report: Data) -> str:
    stops = "".join(f"<dt>{escape(name)}</dt><dd>{count}</dd>" for name, count in report["stops"].items())
    errors = "".join(f"<p><code>{escape(error)}</code></p>" for error in report["errors"])
    return f"<h2>How samples ended</h2><dl>{stops}</dl>{errors}"


def _settings(info: Data) -> str:
    git = info["git"]
    commit = "–" if git is None else git["commit"] + (" (changed since)" if git["dirty"] else "")
    lines = {
        "config hash": info["config_hash"],
        "git commit": commit,
        "packages": ", ".join(f"{name} {number}" for name, number in info["packages"].items()),
        "sampling": json.dumps(info["sampling"]),
        "seeds": json.dumps(info["seeds"]),
    }
    pairs = "".join(f"<dt>{escape(key)}</dt><dd><code>{escape(value)}</code></dd>" for key, value in lines.items())
    config = escape(json.dumps(info["config"], indent=2))
    return f"<h2>Settings</h2><dl>{pairs}</dl><details><summary>Config</summary><pre>{config}</pre></details>"
