"""The page in a real browser: people talk, see two answers, choose; text is shown as text; nothing is left to the eye
alone that a test can see. With TORCHWARD_PICTURES set to a folder, pictures of the page are left there."""

import importlib
import importlib.util
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.places import Place, scripted, serving, speaker
from torchward.serve.server import About
from torchward.serve.talk import Asked

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
EVIL = "<script>window.harmed = true</script><img src=x onerror='window.harmed = true'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium with a profile of its own. Where there is none that is a reason to skip, but not in CI."""
    missing = ""
    if CHROMIUM is None or DRIVER is None:
        missing = "chromium and chromedriver are not installed: apt-get install chromium chromium-driver"
    elif importlib.util.find_spec("selenium") is None:
        missing = 'selenium is not installed: pip install -e ".[dev]"'
    if missing:
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    webdriver = importlib.import_module("selenium.webdriver")
    service = importlib.import_module("selenium.webdriver.chrome.service")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"):
        options.add_argument(flag)
    for flag in ("--disable-background-networking", "--disable-component-update", "--disable-sync"):
        options.add_argument(flag)  # it asks nobody outside
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=service.Service(DRIVER))
    try:
        started.set_script_timeout(60)
        yield started
    finally:
        started.quit()


class Page:
    """What a person does on the page, and sees there."""

    def __init__(self, browser: Any, place: Place) -> None:
        self.browser = browser
        self.browser.get_log("browser")
        self.open(place)

    def open(self, place: Place) -> None:
        self.browser.get(f"http://127.0.0.1:{place.port}/")
        self.until("return document.getElementById('log').dataset.ready === 'true'")

    def js(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def until(self, script: str) -> None:
        wait = importlib.import_module("selenium.webdriver.support.ui").WebDriverWait
        wait(self.browser, 30, 0.05).until(lambda _: self.js(script))

    def type(self, text: str, enter: bool = True) -> None:
        field = self.browser.find_element("id", "text")
        field.click()
        field.send_keys(text + ("\n" if enter else ""))

    def press(self, key: str) -> None:
        """A key, wherever the focus is."""
        chains = importlib.import_module("selenium.webdriver.common.action_chains").ActionChains
        chains(self.browser).send_keys(key).perform()

    def to_buttons(self) -> None:
        """Shift and Tab, from the field."""
        keys = importlib.import_module("selenium.webdriver.common.keys").Keys
        self.browser.find_element("id", "text").send_keys(keys.SHIFT + keys.TAB)
        assert self.js("return document.activeElement.closest('.judge') !== null")

    def ask(self, text: str) -> list[str]:
        """The answers, when they are there."""
        count = self.js("return document.querySelectorAll('.judge').length")
        self.type(text)
        self.until(f"return document.querySelectorAll('.judge').length > {count}")
        return list(
            self.js(
                "return [...document.querySelectorAll('.exchange:last-child .answer .words')].map(e => e.textContent)"
            )
        )

    def stored(self, count: int) -> None:
        self.until(f"return document.querySelectorAll('[data-stored=true]').length === {count}")

    def errors(self) -> list[str]:
        return [line["message"] for line in self.browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]

    def look(self, width: int, height: int, dark: bool = False, mobile: bool = False) -> None:
        """A window of this size, on a system that is light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def picture(self, name: str) -> None:
        if folder := os.environ.get("TORCHWARD_PICTURES"):
            self.browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def rows(path: Path, what: str, table: str = "comparisons") -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as opened:
        found = opened.execute(f"SELECT {what} FROM {table} ORDER BY rowid").fetchall()
    opened.close()
    return found


LEFT, RIGHT, DOWN, UP = "\ue012", "\ue014", "\ue015", "\ue013"
POLITE = (
    "A list keeps its items in order, and you can change them:\n\n    primes = [2, 3, 5]\n    primes.append(7)\n\n"
    "A tuple is fixed once it is made, so it can be a key of a dictionary."
)
SHORT = "Lists can be changed, tuples cannot."


def test_a_person_talks_and_chooses(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    with serving(path, speaker(scripted(POLITE, SHORT)), about=About("assistant")) as place:
        page = Page(browser, place)
        page.look(1100, 760)
        page.picture("empty")
        shown = page.ask("What is the difference between a list and a tuple?")
        assert sorted(shown) == sorted((POLITE, SHORT))
        page.picture("choice")
        browser.find_element("css selector", f"button[aria-label='Answer {shown.index(POLITE) + 1} is better']").click()
        page.stored(1)
        assert page.js("return document.querySelector('.chosen .words').textContent") == POLITE
        page.ask("And which is faster?")
        page.to_buttons()
        page.press(DOWN)
        page.stored(2)
        page.picture("chosen")
        page.ask("once more")
        page.press(LEFT)
        page.stored(3)
        for number, key in ((4, "2"), (5, "t")):
            page.ask("once more")
            page.to_buttons()
            page.press(key)
            page.stored(number)
        assert page.js("return document.documentElement.scrollHeight <= innerHeight"), "the conversation alone scrolls"
        page.ask("with the field empty but in it")
        browser.find_element("id", "text").click()
        page.press(RIGHT)
        page.stored(6)
        page.ask("and with words in it")
        page.type("so", enter=False)
        page.press(LEFT)
        assert page.js("return document.querySelectorAll('[data-stored=true]').length") == 6, "the key moves the cursor"
        assert page.errors() == [] and place.faults == []
    found = rows(path, "choice, shown_left")
    sides = [{"tie": "tie"}.get(choice, "left" if choice == left else "right") for choice, left in found]
    first = "left" if shown.index(POLITE) == 0 else "right"
    assert sides == [first, "tie", "left", "right", "tie", "right"]
    assert found[0][0] == "a"


JUDGED = "return document.querySelectorAll('[data-stored=true], [aria-pressed=true]').length"


@pytest.mark.parametrize(("answers", "scale"), [(2, "thumbs"), (1, "thumbs"), (1, "stars")])
def test_who_writes_or_reads_on_judges_nothing(browser: Any, tmp_path: Path, answers: int, scale: Any) -> None:
    path = tmp_path / "feedback.db"
    about = About("assistant", answers=answers, rating=scale)
    with serving(path, speaker(scripted("long\n" * 60, SHORT)), about=about) as place:
        page = Page(browser, place)
        page.look(1100, 760)
        page.js("window.matchMedia = () => ({matches: false})")  # a mouse, which no headless browser has
        page.type("At length, please.", enter=False)
        browser.find_element("id", "send").click()
        page.until("return document.querySelectorAll('.judge').length === 1")
        status = page.js("return document.getElementById('status').textContent")
        assert ("arrows left and right" in status) == (answers == 2) and "Shift and Tab lead to the buttons" in status
        where = "return document.getElementById('scroll').scrollTop"
        end = page.js(where)
        page.press(UP)
        page.press(DOWN)
        page.press(UP)
        page.until(f"{where} < {end}")
        for at in ("text", "send"):
            page.js(
                "document.getElementById(arguments[0]).dispatchEvent(new KeyboardEvent('keydown', "
                "{key: 'ArrowLeft', repeat: true, bubbles: true}))",
                at,
            )
        page.press("t 0 1 2 3 + -")
        assert page.js("return document.getElementById('text').value") == "t 0 1 2 3 + -", "the focus is in the field"
        page.js("document.getElementById('text').value = ''; document.activeElement.blur()")
        page.press(DOWN + UP + "t12345+-")
        assert page.js(JUDGED) == 0
        page.ask("Once more.")
        assert page.errors() == []
    assert rows(path, "id") == rows(path, "id", "ratings") == []


def test_a_judgement_that_waits_for_the_file_outlives_its_conversation(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    with serving(path, speaker(scripted("one", "other"))) as place:
        page = Page(browser, place)
        page.ask("so?")
        place.server.store.rows.execute("PRAGMA query_only = ON")
        page.press(LEFT)
        page.until("return document.getElementById('status').textContent.includes('trying again')")
        browser.find_element("id", "new").click()
        place.server.store.rows.execute("PRAGMA query_only = OFF")
        page.until("return document.getElementById('status').textContent.startsWith('Stored')")
    assert len(rows(path, "id")) == 1


def test_a_tie_of_texts_that_are_gone_on_with_tells_of_no_conversation(browser: Any, tmp_path: Path) -> None:
    with serving(
        tmp_path / "feedback.db", speaker(scripted("one", "other")), about=About("assistant", converses=False)
    ) as place:
        page = Page(browser, place)
        page.ask("so")
        page.to_buttons()
        page.press(DOWN)
        page.stored(1)
        assert page.js("return document.querySelector('.judge').textContent") == "A tie."


def test_what_is_said_is_text(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"

    def at_once(asked: Asked, count: int) -> Iterator[tuple[int, str | bool]]:
        yield from ((0, EVIL), (1, EVIL + "&amp;"))  # letter by letter, no markup would come of it

    with serving(path, speaker(at_once), about=About(EVIL)) as place:
        page = Page(browser, place)
        assert sorted(page.ask(EVIL)) == [EVIL, EVIL + "&amp;"]
        assert page.js("return document.querySelector('.asked .words').textContent") == EVIL
        assert page.js("return document.getElementById('run').textContent") == EVIL
        page.press(LEFT)
        page.stored(1)
        assert page.js("return window.harmed") is None
        assert page.js("return document.querySelectorAll('main script, main img, header img').length") == 0
        assert page.errors() == []
        # And had it been put in as markup, the policy of the page would have stopped it.
        page.js("document.getElementById('log').insertAdjacentHTML('beforeend', arguments[0])", EVIL)
        page.js(
            "const s = document.createElement('script'); s.textContent = 'window.harmed = 1'; document.body.append(s)"
        )
        page.until("return document.querySelector('main img').complete")
        assert page.js("return window.harmed") is None
        assert any("Content Security Policy" in line for line in page.errors())
    assert len(rows(path, "id")) == 1


@pytest.mark.parametrize(("scale", "key", "value"), [("thumbs", UP, 1), ("stars", "4", 4)])
def test_one_answer_is_rated(browser: Any, tmp_path: Path, scale: Any, key: str, value: int) -> None:
    path = tmp_path / "feedback.db"
    about = About("assistant", answers=1, rating=scale)
    with serving(path, speaker(scripted(SHORT)), about=about) as place:
        page = Page(browser, place)
        assert page.ask("Lists or tuples?") == [SHORT]
        page.to_buttons()
        page.press(key)
        page.stored(1)
        page.picture(scale)
        assert page.errors() == []
    assert rows(path, "answer, scale, value", "ratings") == [(SHORT, scale, value)]


def test_a_narrow_window_and_a_dark_one(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "feedback.db", speaker(scripted(POLITE, "x" * 200)), about=About("assistant")) as place:
        page = Page(browser, place)
        page.look(390, 780, mobile=True)
        page.ask("What is the difference between a list and a tuple? " + "y" * 120)
        assert page.js("return document.documentElement.scrollWidth") <= 390, "nothing sticks out"
        boxes = page.js(
            "return [...document.querySelectorAll('button, textarea')].filter(e => e.offsetParent)"
            ".map(e => e.getBoundingClientRect()).map(r => [r.left, r.right, r.height])"
        )
        assert all(left >= 0 and right <= 390 and height >= 32 for left, right, height in boxes)
        page.picture("narrow")
        page.look(390, 780, dark=True, mobile=True)
        page.picture("narrow-dark")
        page.look(1100, 760, dark=True)
        light = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        assert max(page.js(light)) < 60
        page.picture("dark")
        page.look(1100, 760)
        assert min(page.js(light)) > 200
        unnamed = page.js(
            "return [...document.querySelectorAll('button, textarea, input')].filter(e => e.offsetParent)"
            ".filter(e => !(e.ariaLabel || e.labels?.length || e.textContent.trim())).length"
        )
        assert unnamed == 0, "each control has a name that is read aloud"


def test_two_tabs_keep_apart_and_a_server_that_goes_is_told(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    with serving(path, speaker(scripted("one", "other"))) as place:
        page = Page(browser, place)
        page.ask("first tab")
        one = browser.current_window_handle
        browser.switch_to.new_window("tab")
        page.open(place)
        page.ask("second tab")
        page.press(LEFT)
        page.stored(1)
        browser.close()
        browser.switch_to.window(one)
        page.press(RIGHT)
        page.stored(1)
        assert page.errors() == []
        prompts = rows(path, "prompt")
        assert len({session for (session,) in rows(path, "session")}) == 2
        assert "second" in prompts[0][0] and "second" not in prompts[1][0]
        page.ask("kept for a while")
        port = place.port
    page.press(LEFT)  # nobody is there; the page tries again
    page.until("return document.getElementById('status').textContent.includes('trying again')")
    with serving(path, speaker(scripted("one", "other")), port=port) as place:
        page.until("return document.getElementById('status').textContent.includes('not known here any more')")
        page.ask("the same page, another server")
        assert "does not remember" in page.js("return document.querySelector('.exchange:last-child').textContent")
        page.press(LEFT)
        page.stored(2)
