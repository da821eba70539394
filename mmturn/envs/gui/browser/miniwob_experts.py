"""Scripted solutions of some MiniWoB++ tasks: JavaScript of ours that reads the page and says the next turn's steps
(see ``experts``)."""

from __future__ import annotations

_PRELUDE = """() => {
const $$ = (selector) => [...document.querySelectorAll(selector)].filter(one => one.getBoundingClientRect().width > 0);
const mid = (one) => { const box = one.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2]; };
const click = (one) => ['click', ...mid(one)];
const named = (selector, text) => $$(selector).find(one => (one.textContent || one.value || '').trim() == text);
const said = core.getUtterance();
const quoted = [...said.matchAll(/"([^"]*)"/g)].map(found => found[1]);
const fill = (one, text) => [click(one), ['type', text]];
"""

_BODIES = {
    "click-test": "return [click($$('#subbtn')[0])];",
    "click-test-2": "return [click($$('#subbtn')[0])];",
    "click-test-transfer": "return [click($$('#subbtn')[0])];",
    "click-button": "return [click(named('#area button', quoted[0]))];",
    "click-button-sequence": "return [click($$('#subbtn')[0]), click($$('#subbtn2')[0])];",
    "click-dialog": "return [click($$('.ui-dialog-titlebar-close')[0])];",
    "click-dialog-2": "return [click(quoted[0] == 'x' ? $$('.ui-dialog-titlebar-close')[0] : "
    "named('.ui-dialog button', quoted[0]))];",
    "click-link": "return [click(named('#area .alink', quoted[0]))];",
    "click-option": "return [click([...document.querySelectorAll('#area label')].find("
    "one => one.textContent.trim() == said.match(/Select (.*) and click Submit/)[1]).querySelector('input')), "
    "click($$('#subbtn, button')[0])];",
    "click-checkboxes": "const wanted = said.match(/Select (.*) and click Submit/)[1].split(', ');"
    "return [...$$('#area label').filter(one => wanted.includes(one.textContent.trim()))"
    ".map(one => click(one.querySelector('input'))), click($$('#subbtn')[0])];",
    "click-tab": "return [click(named('.ui-tabs-anchor', said.match(/Tab #\\d+/)[0]))];",
    "click-color": "return [click($$('#area .color').find(one => one.dataset.color == "
    "said.match(/Click on the (.*) colored box/)[1].trim()))];",
    "focus-text": "return [click($$('#area input[type=text]')[0])];",
    "focus-text-2": "return [click($$('#area input[type=text]')[parseInt(said.match(/\\d+/)[0]) - 1])];",
    "enter-text": "return [...fill($$('#tt')[0], quoted[0]), click($$('#subbtn')[0])];",
    "enter-text-dynamic": "return [...fill($$('#tt')[0], quoted[0]), click($$('#subbtn')[0])];",
    "enter-password": "return [...fill($$('#password')[0], quoted[0]), ...fill($$('#verify')[0], quoted[0]), "
    "click($$('#subbtn')[0])];",
    "login-user": "return [...fill($$('#username')[0], quoted[0]), ...fill($$('#password')[0], quoted[1]), "
    "click($$('#subbtn')[0])];",
}

EXPERTS = {name: _PRELUDE + body + "\n}" for name, body in _BODIES.items()}
"""Task -> a JavaScript function that gives the steps of the next turn."""
