"""What a page says besides its pixels: its elements by id, its accessibility tree, what is selected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmturn.envs.gui.browser.session import Session
from mmturn.errors import ToolError
from mmturn.geometry import Point

if TYPE_CHECKING:
    from playwright.async_api import ElementHandle

_FIND = """() => [...document.querySelectorAll('body *')].filter(one => {
  const style = getComputedStyle(one);
  // Scripts tell of what listens to clicks by the pointer's shape alone; children inherit it.
  const told = style.cursor == 'pointer' && getComputedStyle(one.parentElement).cursor != 'pointer';
  if (!told && !one.matches(
    'a[href],button,input,select,textarea,summary,[onclick],[role],[tabindex],[contenteditable=true]')) return false;
  const box = one.getBoundingClientRect();
  return box.width > 0 && box.height > 0 && style.visibility != 'hidden' && one.type != 'hidden' &&
    box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth;
})"""
_TOLD = """(one, id, most) => {
  const tag = one.tagName.toLowerCase(), type = one.getAttribute('type');
  const kind = one.getAttribute('role') || (tag == 'a' ? 'link' : tag == 'input' && type ? type : tag);
  const label = one.getAttribute('aria-label') || one.labels?.[0]?.innerText || one.placeholder ||
    (tag == 'select' ? '' : one.innerText) || one.title || one.alt || '';
  let line = `[${id}] ${kind} ${JSON.stringify(label.replace(/\\s+/g, ' ').trim().slice(0, most))}`;
  if (tag == 'select') line += ' options ' + JSON.stringify([...one.options].slice(0, 30).map(o => o.label)) +
    ' chosen ' + JSON.stringify(one.selectedOptions[0]?.label ?? '');
  else if (type == 'checkbox' || type == 'radio') line += one.checked ? ' checked' : ' unchecked';
  else if (['input', 'textarea'].includes(tag) && type != 'password' && one.value)
    line += ' value ' + JSON.stringify(one.value.slice(0, 200));
  if (one.disabled) line += ' disabled';
  return line;
}"""
_TELL = f"(all) => {{ const told = {_TOLD}; return all.map((one, id) => told(one, id, 80)).join('\\n'); }}"
_TELL_ALL = (
    f"(all) => {{ const told = {_TOLD}; "
    + r"""
  const ids = new Map(all.map((one, id) => [one, id])), lines = [];
  const within = (one) => /^(inline|table-cell|contents)/.test(getComputedStyle(one).display);
  const owned = (one) => one && (ids.has(one) || owned(one.parentElement));
  const seen = (node) => { const range = document.createRange(); range.selectNode(node);
    const box = range.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && getComputedStyle(node.parentElement).visibility != 'hidden' &&
      box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth; };
  const walker = document.createTreeWalker(document.body ?? document, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (ids.has(node)) lines.push({said: told(node, ids.get(node), 400)});
    if (node.nodeType != 3 || !node.data.trim() || owned(node.parentElement) || !seen(node)) continue;
    let block = node.parentElement;
    while (block.parentElement && within(block)) block = block.parentElement;
    const last = lines.at(-1), words = node.data.replace(/\s+/g, ' ').trim();
    if (last?.block == block) last.words += ' ' + words; else lines.push({block, words});
  }
  return lines.map(line => line.said ?? JSON.stringify(line.words)).join('\n');
}"""
)
_AT = """(all, id) => { const one = all[id]; if (!one || !one.isConnected) return null;
  const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }"""
_SELECTED = """() => { const one = document.activeElement;
  if (one && typeof one.selectionStart == 'number' && one.type != 'password')
    return one.value.slice(one.selectionStart, one.selectionEnd);
  return String(getSelection()); }"""
_MOST_TEXT = 20_000


async def elements_text(session: Session, between: bool = False) -> str:
    """The elements on the screen that can be acted on, a line each; their ids are good until the next text.
    ``between``: and the words that stand between them, in quotes."""
    session.listed = await session.page.evaluate_handle(_FIND)
    text: str = await session.listed.evaluate(_TELL_ALL if between else _TELL)
    return text[:_MOST_TEXT]


async def accessibility_text(session: Session) -> str:
    """The accessibility tree, as indented text (Playwright's aria snapshot)."""
    text = await session.page.locator("body").aria_snapshot()
    return text[:_MOST_TEXT]


async def element_point(session: Session, element: str) -> Point:
    """The middle of a listed element, in CSS pixels. Raises ToolError for one that is not there."""
    if session.listed is None:
        raise ToolError("no elements have been listed here; give a point")
    if not element.isdigit():
        raise ToolError(f"there is no element {element!r:.40}; ids are whole numbers")
    found: list[float] | None = await session.listed.evaluate(_AT, int(element))
    if found is None:
        raise ToolError(f"there is no element {element:.40} on the page any more")
    return Point(*found)


async def pick_option(session: Session, element: str | None, option: str) -> None:
    """Choose an option of a drop-down list, by its label or its value; of the focused one without ``element``.
    Raises ToolError."""
    handle = await _select(session, element)
    names: list[tuple[str, str]] = await handle.evaluate("one => [...one.options].map(o => [o.label, o.value])")
    index = next((i for i, (label, value) in enumerate(names) if option in (label.strip(), label, value)), None)
    if index is None:
        raise ToolError(
            f"there is no option {option!r:.80}; options are: {', '.join(label for label, _ in names):.500}"
        )
    await handle.select_option(index=index)


async def _select(session: Session, element: str | None) -> ElementHandle:
    found: Any
    if element is None:
        found = await session.page.evaluate_handle("() => document.activeElement")
    else:
        await element_point(session, element)  # says what is wrong with an id
        assert session.listed is not None
        found = await session.listed.evaluate_handle("(all, id) => all[id]", int(element))
    handle: ElementHandle | None = found.as_element()
    if handle is None or not await handle.evaluate("one => one instanceof HTMLSelectElement"):
        raise ToolError("that is no drop-down list with options")
    return handle


async def selected_text(session: Session) -> str:
    """The text that is selected, for copying."""
    text: str = await session.evaluate(_SELECTED)
    return text
