"""The live page of a real server in a real browser: headless Chromium."""

from __future__ import annotations

import os
import re

import pytest
from playwright.sync_api import expect

from scripts.tools.screenshot_page import chromium, chromium_path, load
from tests.server.launched import Launched

pytestmark = pytest.mark.skipif(
    chromium_path() is None and os.environ.get("CI") != "true", reason="chromium is not installed"
)
PROMPT = "What is a ring buffer?"
expect.set_options(timeout=30_000)
NOTHING = "\N{EN DASH}"  # where nothing was observed


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Launched(tmp_path_factory.mktemp("server"), ("pipeline.runner.cost_model.fixed_ms=5",))
    yield server
    server.stop()


@pytest.fixture
def visit(browser):
    """Opens a server's page, and sees that it neither complains nor asks anybody else. `troubled`: the browser may
    say that the server refused something, or was not there."""
    contexts, complaints = [], []

    def start(server, *, width=1100, theme="light", troubled=False, **options):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=theme, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)

        def on_console(message):
            if message.type == "error" and not (troubled and message.text.startswith("Failed to load resource")):
                complaints.append(message.text)

        page.on("console", on_console)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith(server.base) or complaints.append(request.url))
        page.goto(server.base)
        expect(page.get_by_role("status").first).to_have_text("serving")
        return page

    yield start
    for context in contexts:
        context.close()
    assert complaints == []


def port_of(server):
    return int(server.base.rsplit(":", 1)[1])


def number(page, selector):
    """The number that an element shows."""
    return float(re.sub(r"[^0-9.]", "", page.locator(selector).text_content().split("of")[0]) or 0)


def wait_for(page, condition):
    """Playwright's own function of that kind evaluates texts within the page, which its policy forbids."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {condition}")


def test_figures_move_under_load(server, visit):
    page = visit(server)
    assert page.title() == f"RingServe · {server.config.pipeline.model_name}"
    expect(page.locator("#about")).to_contain_text(server.runner.facts.name)
    assert page.locator("#itl").text_content() == NOTHING
    with load(port_of(server), 5, sampled=2):
        expect(page.locator("#running")).to_have_text(re.compile("^5"))
        expect(page.locator("#batch-decode")).to_have_text("5")
        expect(page.locator("#step-inference-time")).not_to_have_text(NOTHING)
        assert number(page, "#tokens") > 0
        assert number(page, "#itl") > 4  # ms: the device takes 5
        assert number(page, "#step-device-time") >= 5
        assert 0 < number(page, "#batch-kv") < 100
        expect(page.locator(".rows .decode")).to_have_count(5)
        before = page.locator("#spark .line").get_attribute("d")
        wait_for(page, f"document.querySelector('#spark .line').getAttribute('d') !== '{before}'")
        assert page.locator("#pipeline .flow:not([data-pace='0'])").count() >= 4
        used = page.locator("#pipeline .slot.used").count()
        assert used >= 4  # at least the marks of the rings of bytes
    expect(page.locator("#running")).to_have_text(re.compile("^0"))
    expect(page.locator("#tokens")).to_have_text("0")
    expect(page.locator("#batch-free")).to_have_text("8")


def test_the_table_of_rings_is_what_the_metrics_say(server, visit):
    page = visit(server)
    page.get_by_text("The rings as a table").click()
    rows = {row.split("\t")[0]: row.split("\t") for row in page.locator("#rings").inner_text().splitlines() if row}
    assert set(rows) == {"requests", "replies", "steps", "logits", "tokens", "results", "rows", "deltas"}
    assert rows["steps"][1:3] == ["preprocess", "inference"]
    for name in ("steps", "logits", "results"):
        capacity = server.metric("ringserve_ring_capacity", ring=name)
        assert rows[name][4] == f"0 of {capacity:.0f} slots"


def test_a_prompt_streams(server, visit):
    page = visit(server)
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_label("Max. tokens").fill("300")
    page.get_by_role("button", name="Send").click()
    lengths = "window.lengths = new Set(); new MutationObserver(() => lengths.add(answer.textContent.length))"
    page.evaluate(f"{lengths}.observe(answer, {{childList: true, subtree: true}})")
    expect(page.locator("#answer-note")).to_contain_text("300 tokens, the first after")
    assert page.locator("#answer").text_content() == server.text(PROMPT, 300)
    assert page.evaluate("lengths.size") > 10  # it came piece by piece
    page.get_by_label("Max. tokens").fill("7")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#answer-note")).to_contain_text("7 tokens")
    assert page.locator("#answer").text_content() == server.text(PROMPT, 7)


def test_a_call_is_shown(server, visit):
    pytest.importorskip("llguidance")
    page = visit(server)
    page.get_by_text("Ask as a chat, with tools").click()
    page.get_by_label("Tool choice").select_option("required")
    page.get_by_label("Max. tokens").fill("150")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#answer-note")).to_contain_text("tokens, the first after")
    call = page.locator("#answer .call").first
    expect(call.locator("b")).to_have_text("look_up")
    assert '{"topic"' in call.text_content()
    expect(page.locator("#requests-note")).to_contain_text("tool calls so far")
    page.get_by_label("Tools, as in OpenAI").fill("[{")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#answer-note")).to_contain_text("the tools are not JSON")


def test_a_stream_is_stopped(server, visit):
    page = visit(server)
    page.get_by_label("Max. tokens").fill("450")
    press = "answer.textContent.length > 20 && document.getElementById('stop').click()"
    page.evaluate(f"new MutationObserver(() => {press}).observe(answer, {{childList: true, subtree: true}})")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#answer-note")).to_have_text("stopped")
    expect(page.locator("#running")).to_have_text(re.compile("^0"))


def test_what_the_server_refuses_is_said(server, visit):
    page = visit(server, troubled=True)
    page.get_by_label("Prompt", exact=True).fill("too long " * 400)
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#answer-note")).to_contain_text("at most")
    expect(page.locator("#answer-note")).to_have_class("bad")


def test_a_server_that_wants_a_key_goes_and_comes_back(tmp_path, monkeypatch, visit):
    monkeypatch.setenv("RINGSERVE_API_KEYS", "sk-of-this-test-0123456789")
    server = Launched(tmp_path, ())
    try:
        page = visit(server, troubled=True)
        key, state = page.get_by_label("API key"), page.get_by_role("status").first
        expect(key).to_be_hidden()
        page.get_by_role("button", name="Send").click()
        expect(key).to_be_focused()
        expect(page.locator("#answer-note")).to_contain_text("key is needed")
        key.fill("sk-of-this-test-0123456789")
        key.press("Enter")
        expect(page.locator("#answer-note")).to_contain_text("80 tokens")
        server.stop()
        expect(state).to_have_text("no connection, reconnecting")
        server = Launched(tmp_path, (f"serving_config.server_port={port_of(server)}",))
        expect(state).to_have_text("serving")
    finally:
        server.stop()


@pytest.mark.parametrize(("width", "theme"), [(320, "light"), (320, "dark"), (768, "light"), (1440, "dark")])
def test_nothing_is_wider_than_the_window(server, visit, width, theme):
    page = visit(server, width=width, theme=theme)
    page.get_by_text("The rings as a table").click()
    page.get_by_label("Max. tokens").fill("40")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#answer-note")).to_contain_text("40 tokens")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, svg') "
    outside += f"&& e.getBoundingClientRect().right > {width}).map(e => e.outerHTML)"
    assert page.evaluate(outside) == []
    form = page.locator("#pipeline").get_attribute("class")
    assert form == ("tall" if width < 704 else "wide")


CONTRASTS = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => channels(color).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => { const c = getComputedStyle(e).backgroundColor;
    return channels(c)[3] === 0 ? ground(e.parentElement) : c; };
  return [...document.querySelectorAll("body *:not(script)")]
    .filter((e) => e.checkVisibility() && !e.disabled)
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((e) => {
      const style = getComputedStyle(e), svg = e.closest("#pipeline");
      const pair = [light(svg ? style.fill : style.color), light(ground(svg ? svg.parentElement : e))].sort();
      return [e.textContent.slice(0, 30), (pair[1] + 0.05) / (pair[0] + 0.05)];
    });
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(server, visit, theme):
    """WCAG 2.2, level AA: a contrast of 4.5."""
    page = visit(server, theme=theme)
    expect(page.locator("#batch-free")).to_have_text("8")
    ratios = page.evaluate(CONTRASTS)
    assert len(ratios) > 60
    assert [(text, ratio) for text, ratio in ratios if ratio < 4.5] == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (theme == "dark")


def test_the_keyboard_is_enough(server, visit):
    page = visit(server)
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert reached[:2] == ["Skip to the prompt", "The rings as a table"]
    assert [name for name in reached if name in ("prompt", "max-tokens", "temperature", "send", "answer")] == [
        "prompt", "max-tokens", "temperature", "send", "answer",
    ]  # fmt: skip
    page.get_by_label("Max. tokens").fill("5")
    page.get_by_label("Prompt", exact=True).press("Control+Enter")
    expect(page.locator("#answer-note")).to_contain_text("5 tokens")


def test_everything_has_a_name(server, visit):
    page = visit(server)
    unnamed = "[...document.querySelectorAll('input, textarea, select, button, output#answer')]"
    unnamed += ".filter(e => !e.labels?.length && !e.textContent.trim()).map(e => e.id)"
    assert page.evaluate(unnamed) == []
    for heading in ("Pipeline", "Time between two tokens", "Batch and KV cache", "Try it"):
        expect(page.get_by_role("region", name=heading)).to_be_visible()


def test_nothing_moves_for_those_who_do_not_want_it(server, visit):
    page, still = visit(server), visit(server, reduced_motion="reduce")
    with load(port_of(server), 2):
        moving = "document.querySelector('.flow[data-pace]:not([data-pace=\"0\"])') !== null"
        wait_for(page, moving)
        wait_for(still, moving)
        running = "document.getAnimations().filter(a => a.playState === 'running').length"
        assert page.evaluate(running) > 0
        assert still.evaluate(running) == 0


def test_nobody_watches_a_page_that_is_not_seen(server, visit):
    """A tab in the background ends its stream."""
    page = visit(server)
    ended = []
    page.on("requestfailed", lambda request: ended.append(request.url))
    page.evaluate("Object.defineProperty(document, 'hidden', {configurable: true, get: () => window.away})")
    page.evaluate("window.away = true; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(200)
    assert ended == [f"{server.base}/live"]
    with page.expect_request("**/live"):
        page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")


def test_of_several_replicas_one_is_shown(tmp_path, visit):
    server = Launched(tmp_path, ("pipeline.replicas=2", "pipeline.runner.cost_model.fixed_ms=5"))
    try:
        page = visit(server)
        first, second = page.locator("#replicas button").all()
        expect(first).to_have_attribute("aria-pressed", "true")
        with load(port_of(server), 4, sampled=0):
            for button in (first, second):
                expect(button).to_contain_text(re.compile(r"serving2 running, [1-9]"))
            second.click()
            expect(second).to_have_attribute("aria-pressed", "true")
            expect(first).to_have_attribute("aria-pressed", "false")
            page.get_by_text("The rings as a table").click()
            expect(page.locator("#rings tr")).to_have_count(8)
            expect(page.locator("#pipeline .stage")).to_have_count(4)
        expect(page.locator("#running")).to_contain_text("of 16 rows")
        page.close()  # it would complain of a server that stops
    finally:
        server.stop()
