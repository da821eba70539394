"""What a page cannot do: read files, reach the network, see another episode; and what a policy's text never becomes."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import threading

import pytest

from mmturn.envs.gui.browser import chromium as chromium_module
from mmturn.envs.gui.browser.pool import Pool, PoolSettings
from mmturn.envs.gui.browser.sites import WebResponse
from mmturn.errors import ToolError
from mmturn.geometry import Size
from mmturn.gui_actions import act
from mmturn.tasks.gui.miniwob import miniwob_task
from tests.envs.gui.browser.conftest import pages_task

pytestmark = pytest.mark.browser


@pytest.fixture
def server():
    """A server of this machine that pages must not reach; the paths that were asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    there = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=there.serve_forever, daemon=True).start()
    yield there.server_address[1], asked
    there.shutdown()
    there.server_close()


TRIES = """<script>
const tries = {};
const put = (name, promise) => { tries[name] = 'waiting';
  promise.then(x => { tries[name] = 'GOT ' + x; }, e => { tries[name] = 'no'; }); };
const loaded = (tag, url) => new Promise((yes, no) => { const one = document.createElement(tag);
  one.onload = () => yes(tag); one.onerror = no; one.src = url; document.head.append(one); });
const base = '127.0.0.1:PORT';
put('file', fetch('file:///etc/passwd').then(r => r.text()));
put('xhr', new Promise((yes, no) => { const x = new XMLHttpRequest(); x.onerror = no;
  x.onload = () => yes(x.responseText); x.open('GET', 'file:///etc/hostname'); x.send(); }));
put('loopback', fetch('http://' + base + '/fetch', {mode: 'no-cors'}));
put('https', fetch('https://' + base + '/tls', {mode: 'no-cors'}));
put('named', fetch('https://example.com/', {mode: 'no-cors'}));
put('image', loaded('img', 'http://' + base + '/image'));
put('script', loaded('script', 'http://' + base + '/script'));
put('socket', new Promise((yes, no) => { const s = new WebSocket('ws://' + base + '/socket'); s.onopen = yes;
  s.onerror = no; s.onclose = no; }));
put('worker', new Promise((yes, no) => { const w = new Worker(URL.createObjectURL(new Blob([
  `fetch('http://${base}/worker', {mode: 'no-cors'}).then(() => postMessage(1), () => postMessage(0))`])));
  w.onmessage = e => e.data ? yes('worker') : no(); w.onerror = no; }));
navigator.sendBeacon('http://' + base + '/beacon', 'x');
put('stun', new Promise((yes, no) => { const c = new RTCPeerConnection({iceServers: [{urls: 'stun:' + base}]});
  c.createDataChannel('x');
  c.onicecandidate = e => { if (!e.candidate) no(); else if (e.candidate.type != 'host') yes(1); };
  c.createOffer().then(o => c.setLocalDescription(o)); setTimeout(no, 1500); }));
put('worker-service', navigator.serviceWorker
  ? navigator.serviceWorker.register('/sw.js').then(r => r || Promise.reject()) : Promise.reject());
const frame = document.createElement('iframe'); frame.src = 'file:///etc/passwd';
document.documentElement.append(frame);
state = {tries};
</script>"""


def test_a_page_reaches_neither_files_nor_the_network(make_env, server):
    port, asked = server
    env = make_env({"/": TRIES.replace("PORT", str(port)), "/sw.js": ""})
    env.reset(pages_task(), 0)
    step = env.step((act("wait", duration_s=2.5),))
    tries = env.pool.run(env.session.evaluate("() => state.tries"), 5.0)
    assert len(tries) == 11 and set(tries.values()) == {"no"}, tries
    assert asked == [], "not one request arrived"
    framed = env.pool.run(env.session.evaluate("() => { try { return frames[0].document.body.innerText } catch (e) "
                                               "{ return '' } }"), 5.0)  # fmt: skip
    assert "root:" not in (framed or "")
    assert any("/fetch" in url for url in env.session.blocked) and step.observation is not None


RTC = """(port) => new Promise(done => {
  const seen = [], ice = [{urls: `stun:127.0.0.1:${port}`}], one = new RTCPeerConnection({iceServers: ice});
  one.createDataChannel('x');
  one.onicecandidate = e => e.candidate ? seen.push(e.candidate.candidate) : done(seen);
  one.createOffer().then(o => one.setLocalDescription(o));
  const there = {candidate: `candidate:1 1 udp 2113937151 127.0.0.1 ${port} typ host`, sdpMid: '0', sdpMLineIndex: 0};
  const two = new RTCPeerConnection(), three = new RTCPeerConnection();
  two.createDataChannel('y');
  two.createOffer().then(o => two.setLocalDescription(o)).then(() => three.setRemoteDescription(two.localDescription))
    .then(() => three.createAnswer()).then(a => three.setLocalDescription(a).then(() => two.setRemoteDescription(a)))
    .then(() => two.addIceCandidate(there));
  setTimeout(() => done([...seen, 'late']), 1500);
})"""


@pytest.mark.parametrize("program", ["chromium-headless-shell", "chromium"])
def test_webrtc_sends_nothing(browser, monkeypatch, program):
    """Its datagrams pass neither the interception nor the proxy; each kind of Chromium has its own switch."""
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} here")
    monkeypatch.setenv("MMTURN_CHROMIUM", program)
    pool = Pool(PoolSettings(Size(200, 100), prewarmed=0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.2)
        try:
            seen = pool.run(pool.fresh(60.0).evaluate(RTC, listener.getsockname()[1]), 30.0)
            with pytest.raises(TimeoutError):
                listener.recv(100)
        finally:
            pool.close()
    assert [candidate for candidate in seen if candidate != "late"] == []


def test_redirects_lead_to_the_sites_and_nowhere_else(make_env, server):
    port, asked = server
    ways = {
        "/go": "/landed?x=1#part", "/far": f"http://127.0.0.1:{port}/redirected", "/file": "file:///etc/passwd",
        "/script": "javascript:document.title='run'", "/inner": "https://chrome.test/",
    }  # fmt: skip
    form = "<form method=post action=/go><button style='width:200px;height:100px'>x</button></form>"
    sub = "".join(f"<img src=/far><iframe src={way}></iframe>" for way in ways)
    env = make_env({"/": form, "/landed": "<b>landed</b>", "/sub": sub})
    site = env.sites["pages"]
    plain = site.answer

    def answer(request):
        if request.path not in ways:
            return plain(request)
        return WebResponse(b"", status=303, headers={"Location": ways[request.path], "Set-Cookie": "seen=yes"})

    site.answer = answer
    env.reset(pages_task(), 0)
    step = env.step((act("click", 0, point=[50, 50]), act("wait", duration_s=0.3)))
    assert step.facts["url"] == "https://pages.test/landed?x=1#part"
    assert [request.method for request in site.asked] == ["GET", "GET"], "what was posted is not posted there"
    script = "() => fetch('/go').then(r => r.text())"
    assert "landed" in env.pool.run(env.session.evaluate(script), 5.0)
    assert env.pool.run(env.session.evaluate("() => document.cookie"), 5.0) == "seen=yes"
    assert env.step((act("back"),)).facts["url"].startswith("https://pages.test/?seed="), "in place of where it was"
    for way in [*ways][1:]:
        step = env.step((act("goto", url=f"pages.test{way}"),))
        assert any(way in url for url in step.facts["blocked"]) and not step.terminated, way
        env.step((act("reload"),))
    env.step((act("goto", url="pages.test/sub"), act("wait", duration_s=0.3)))
    assert asked == [] and not env.step((act("screenshot"),)).terminated


def test_the_proxy_and_the_resolver_stop_what_interception_would_miss(make_env, server, monkeypatch):
    """Even with every request let through, nothing is reached."""
    port, asked = server
    env = make_env({"/": ""})
    env.reset(pages_task(), 0)
    session = env.session

    async def let_through():
        await session.context.unroute_all()
        return await session.page.evaluate(
            "(url) => fetch(url, {mode: 'no-cors'}).then(() => 'GOT', () => 'no')", f"http://127.0.0.1:{port}/direct"
        )

    assert env.pool.run(let_through(), 10.0) == "no" and asked == []


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "javascript:document.title=1", "data:text/html,x", "chrome://version", "view-source:x.test",
     "https://example.com/", "http://127.0.0.1/", "https://u@pages.test/", "https://pages.test:8443/", "about:settings",
     "blob:https://pages.test/x", "ftp://pages.test/", "https://[::1]/", "https://pages.test.evil.test/", "", "https://["],
)  # fmt: skip
def test_a_policy_can_go_nowhere_else(make_env, url):
    env = make_env({"/": "<title>here</title>"})
    env.reset(pages_task(), 0)
    with pytest.raises(ToolError, match=r"cannot be reached; only .*pages.test"):
        env.step((act("goto", url=url),))
    assert env.step((act("screenshot"),)).facts["url"].startswith("https://pages.test/")


def test_a_site_path_never_leads_out_of_its_folder(make_env):
    env = make_env()
    for url in (
        "https://shop.test/../mail/app.js",
        "https://shop.test/..%2f..%2f..%2fneeds.py",
        "https://shop.test/%00",
    ):
        task = pages_task()
        env.sites = {**env.sites, "pages": env.sites["shop"]}
        env.reset(task, 0)
        env.step((act("goto", url=url),))
        said = env.pool.run(env.session.evaluate("() => document.body.innerText"), 5.0)
        assert "Not found" in said, url


KEEPS = """<script>
state = {before: [document.cookie, localStorage.x ?? null, sessionStorage.x ?? null, window.name]};
document.cookie = 'x=SECRET'; localStorage.x = 'SECRET'; sessionStorage.x = 'SECRET'; window.name = 'SECRET';
indexedDB.databases().then(all => { state.databases = all.length; indexedDB.open('x'); });
</script>"""


def test_an_episode_sees_nothing_of_another(make_env):
    env, beside = make_env({"/": KEEPS}), make_env({"/": KEEPS})
    for one in (env, beside, env, beside):
        one.reset(pages_task(), 0)
        one.step((act("wait", duration_s=0.1),))
        found = one.pool.run(one.session.evaluate("() => state"), 5.0)
        assert found == {"before": ["", None, None, ""], "databases": 0}


def test_sessions_are_used_again_for_miniwob_alone_and_its_pages_keep_nothing(make_env):
    env = make_env({"/": ""})
    env.reset(miniwob_task("click-test", 1), 0)
    first = env.session
    env.step((act("click", 0, point=[80, 100]),))
    kept = "() => [document.cookie, localStorage.length, sessionStorage.length]"
    assert env.pool.run(env.session.evaluate(kept), 5.0) == ["", 0, 0]
    env.reset(miniwob_task("click-test", 2), 0)
    assert env.session is first
    env.reset(pages_task(), 0)
    page = env.session
    assert page is not first
    env.reset(pages_task(), 0)
    assert env.session is not page
    env.reset(miniwob_task("click-link", 2), 0)
    assert env.session is not page


def test_typed_text_is_never_run(make_env, tmp_path):
    html = "<textarea id=t rows=9 cols=40></textarea><script>state = {}; t.focus()</script>"
    env = make_env({"/": html})
    env.reset(pages_task(), 0)
    mark = tmp_path / "run"
    text = f"<img src=x onerror=state.done=true>${{state.done=true}}');state.done=true;//$(touch {mark}) `touch {mark}`"
    step = env.step((act("type", text=text), act("key", keys=["enter"])))
    assert step.facts["checks"] == [False] and not mark.exists()
    assert env.pool.run(env.session.evaluate("() => t.value"), 5.0) == text + "\n"


def test_downloads_are_off(make_env):
    html = "<a id=a download=x.txt href='data:text/plain,hello' style='position:absolute;inset:0'>get</a>"
    env = make_env({"/": html})
    env.reset(pages_task(), 0)
    env.step((act("click", 0, point=[50, 50]), act("wait", duration_s=0.3)))
    scratch = env.pool.scratch
    saved = [path for path in scratch.rglob("*") if path.is_file() and path.read_bytes() == b"hello"]
    assert scratch.is_dir() and saved == []


def test_the_sandbox_is_on_unless_the_user_is_root(make_env, monkeypatch, caplog):
    asked = {}

    class Browsers:
        async def launch(self, **settings):
            asked.update(settings)
            raise OSError("not really")

    class Playwright:
        chromium = Browsers()

        async def start(self):
            return self

        async def stop(self):
            pass

    monkeypatch.setattr("playwright.async_api.async_playwright", Playwright)
    import asyncio

    for uid, sandbox in ((1000, True), (0, False)):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        caplog.clear()
        with pytest.raises(OSError, match="not really"):
            asyncio.run(chromium_module.launch(5.0))
        assert asked["chromium_sandbox"] is sandbox
        assert ("without its sandbox" in caplog.text) is not sandbox
