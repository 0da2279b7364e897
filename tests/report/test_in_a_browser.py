"""The page of a network in a real browser: Chromium without a window, where there is one."""

import re
import shutil
import subprocess

import pytest

import nncompress_jax as nnc
from tests.methods.drawn import draw
from tests.report.test_page import Page, X, apply

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(NAMES)} is installed")


@pytest.fixture
def shown(tmp_path):
    """Opens a page of HTML: (text, script that runs in the end) -> what then stands in it, what the console says."""

    def opened(text, script=""):
        page = tmp_path / "shown.html"
        page.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", "--enable-logging=stderr", "--v=0"]
        flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--disable-extensions"]
        done = subprocess.run([BROWSER, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, re.findall(r"CONSOLE.*", done.stderr)

    return opened


@pytest.fixture
def page(tmp_path):
    weights = nnc.compress({"W_2": draw(16, 32), "W_10": draw(32, 8), "bias": draw(8)}, nnc.quantize(where="W_*"))
    nnc.report(tmp_path / "a.html", apply, weights, X)
    return (tmp_path / "a.html").read_text()


def first_column(text):
    """Below its head."""
    return [row[0] for row in Page(text).tables[0][1:]]


def test_it_is_shown_and_complains_of_nothing(shown, page):
    text, console = shown(page)
    assert console == []
    assert first_column(text) == first_column(page) == ["W_2", "W_10", "all else"]


def test_the_console_is_heard(shown, page):
    assert "something is wrong" in shown(page, "console.error('something is wrong')")[1][0]


def test_it_asks_for_nothing(shown, page):
    """What a page fetches is listed by the browser itself."""
    asked = "document.title = JSON.stringify(performance.getEntriesByType('resource').map(entry => entry.name))"
    assert re.search(r"<title>(.*?)</title>", shown(page, asked)[0])[1] == "[]"


@pytest.mark.parametrize(
    ("column", "clicks", "order"),
    [
        ("bytes", 1, ["all else", "W_10", "W_2"]),  # 32, 288 and 640 bytes
        ("bytes", 2, ["W_2", "W_10", "all else"]),
        ("weight", 1, ["all else", "W_2", "W_10"]),  # 2 before 10
    ],
)
def test_a_click_sorts(shown, page, column, clicks, order):
    place = Page(page).tables[0][0].index(column)
    text, console = shown(page, f"document.querySelectorAll('th')[{place}].click();" * clicks)
    assert (first_column(text), console) == (order, [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(shown, page, width, scheme):
    """But what scrolls by itself, as tables do; the text is readable on what is behind it."""
    script = """
    const frame = document.createElement("iframe");
    frame.style.cssText = "width: %dpx; color-scheme: %s"; frame.srcdoc = PAGE; document.body.replaceChildren(frame);
    frame.onload = () => { const page = frame.contentDocument, style = frame.contentWindow.getComputedStyle(page.body);
      document.title = [page.documentElement.scrollWidth, style.color, style.backgroundColor].join(";"); };
    """
    quoted = page.replace("\\", "\\\\").replace("`", "\\`").replace("</script>", "<\\/script>")
    text, _ = shown("<title></title><body></body>", f"const PAGE = `{quoted}`;" + script % (width, scheme))
    wide, *colours = re.search(r"<title>(.*?)</title>", text)[1].split(";")
    assert int(wide) <= width
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 765 for colour in colours]
    assert abs(brightness[0] - brightness[1]) > 0.5
    assert (brightness[0] < brightness[1]) == (scheme == "light")
