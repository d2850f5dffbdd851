"""The page of an overflow report in a real browser: scripts, sorting, narrow screens, print."""

from __future__ import annotations

import html
import json
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from abcdeep_core.overflow import page
from overflow_reports import layer, model, report

pytest.importorskip("jinja2", reason="needs the extra [report]")

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium (package chromium)"),
]

# Runs before the page's own script and keeps what goes wrong.
WATCH = """<script>
window.wrong = [];
window.addEventListener("error", (event) => wrong.push(event.message));
console.error = console.warn = (...texts) => wrong.push(texts.join(" "));
</script>"""

# Reads and drives the page like a person, then leaves what it saw in an element.
DRIVE = """<script>
window.addEventListener("load", () => {
  const seen = {};
  const names = () => [...document.querySelectorAll("#layers tbody tr")]
    .filter((row) => !row.hidden).map((row) => row.cells[0].textContent);
  const head = (key) => document.querySelector(`#layers th[data-key="${key}"]`);
  const press = (key) => head("name").firstElementChild.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const tell = (key) => { seen[key] = { names: names(), hash: location.hash,
    sorted: [...document.querySelectorAll("th[aria-sort]")]
      .map((cell) => [cell.dataset.key, cell.getAttribute("aria-sort")]) }; };
  tell("address");
  head("k").firstElementChild.click(); tell("click");
  head("k").firstElementChild.click(); tell("click again");
  press("Enter"); tell("enter");
  press(" "); tell("space");
  const filter = document.getElementById("filter");
  filter.value = "OUTPUT"; filter.dispatchEvent(new Event("input")); tell("filter");
  seen.status = document.getElementById("said").textContent;
  document.getElementById("worst").click(); tell("worst");
  const plot = document.querySelector("figure svg");
  plot.dispatchEvent(new PointerEvent("pointerenter"));
  seen.hover = plot.querySelectorAll(".hover rect title")[0].textContent;
  seen.focusable = document.querySelectorAll("#layers th [tabindex='0']").length;
  seen.wrong = wrong;
  const kept = document.createElement("pre");
  kept.id = "seen"; kept.textContent = JSON.stringify(seen); document.body.append(kept);
});
</script>"""

# Says whether the table of layers has room in its window, and whether a line says that it has not.
ROOM = """<script>
window.addEventListener("load", () => {
  const box = document.getElementById("layers").parentElement;
  const kept = document.createElement("pre");
  kept.id = "seen";
  kept.textContent = JSON.stringify({ fits: box.scrollWidth <= box.clientWidth,
    said: !document.getElementById("wider").hidden });
  document.body.append(kept);
});
</script>"""

# Shows the page in a frame as wide as a phone and measures it.
PHONE = """<!DOCTYPE html><body style="margin:0"><iframe id="frame" srcdoc="{page}"
style="border:0;width:390px;height:800px"></iframe><script>
document.getElementById("frame").addEventListener("load", (event) => {{
  const root = event.target.contentDocument.documentElement;
  const boxes = [...root.querySelectorAll(".scroll")];
  const inside = (part) => part.closest(".scroll") !== null;
  const wide = [...root.querySelectorAll("body *")]
    .filter((part) => !inside(part) && part.getBoundingClientRect().right > 390.5)
    .map((part) => part.tagName + "." + part.className);
  const kept = document.createElement("pre");
  kept.id = "seen";
  kept.textContent = JSON.stringify({{ width: root.scrollWidth, shown: root.clientWidth, wide,
    scrolls: boxes.filter((box) => box.scrollWidth > box.clientWidth).length }});
  document.body.append(kept);
}});
</script>"""


def browse(folder: Path, *arguments: str) -> str:
    """Run the browser on its own profile and return what it prints; the console stays empty."""
    assert BROWSER is not None
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    fixed += ["--enable-logging=stderr"]
    fixed += ["--virtual-time-budget=5000", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run(
        [BROWSER, *fixed, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        cwd=folder,
        check=True,
    )
    assert not [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return done.stdout


def seen_by(folder: Path, text: str, fragment: str = "", *options: str) -> dict[str, Any]:
    """Open a page and return what its test script saw."""
    path = folder / "driven.html"
    path.write_text(text, encoding="utf-8")
    found = re.search(
        r'<pre id="seen">(.*?)</pre>',
        browse(folder, *options, "--dump-dom", path.as_uri() + fragment),
    )
    assert found is not None
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen


def test_sorting_and_filtering(tmp_path: Path) -> None:
    made = model(12)
    text = (
        page.render(made).replace("<head>", "<head>" + WATCH).replace("</body>", DRIVE + "</body>")
    )
    seen = seen_by(tmp_path, text, "#sort=given:up")
    assert seen["wrong"] == []

    layers = made["layers"]
    worst = re.findall(r'<th scope="row" class="name"[^>]*><a[^>]*>(.*?)</a>', text)
    assert sorted(worst) == sorted(data["name"] for data in layers)
    given = {data["name"]: data["data_widths"]["given"] for data in layers}
    terms = {data["name"]: data["terms"] for data in layers}

    assert seen["address"]["names"] == sorted(worst, key=given.__getitem__)
    assert seen["address"]["sorted"] == [["given", "ascending"]]
    assert seen["click"]["names"] == sorted(worst, key=lambda name: -terms[name])
    assert seen["click"]["hash"] == "#sort=k:down"
    assert seen["click again"]["names"] == sorted(worst, key=terms.__getitem__)
    assert seen["click again"]["sorted"] == [["k", "ascending"]]
    assert seen["enter"]["names"] == sorted(worst)
    assert seen["space"]["names"] == sorted(worst, reverse=True)
    assert seen["space"]["sorted"] == [["name", "descending"]]
    shown = [name for name in seen["space"]["names"] if "output" in name]
    assert seen["filter"]["names"] == shown
    assert seen["filter"]["hash"] == "#sort=name:down&filter=OUTPUT"
    assert seen["status"] == f"{len(shown)} of 12 layers"
    assert seen["worst"]["names"] == worst
    assert seen["worst"]["hash"] == ""
    assert re.fullmatch(r"8 bits: persistent [\d,]+ \(.*%\), transient .*", seen["hover"])
    assert seen["focusable"] == page.render(made).count("data-key=")


@pytest.mark.parametrize("accumulators", [2, 6])
def test_two_accumulators_fit_1200_pixels_and_more_are_announced(
    tmp_path: Path, accumulators: int
) -> None:
    rules = ["int16:wrap", "int16:saturate", *(f"int{bits}:wrap" for bits in range(17, 21))]
    made = report([layer("4 Conv2d", accumulators=rules[:accumulators])])
    text = page.render(made).replace("</body>", ROOM + "</body>")
    seen = seen_by(tmp_path, text, "", "--window-size=1200,900")
    assert seen == {"fits": accumulators == 2, "said": accumulators > 2}


def test_a_phone_scrolls_the_tables_and_not_the_page(tmp_path: Path) -> None:
    names = ["encoder.layer.0.attention.output.dense", "a" * 300, "/model/" + "block.7/" * 40]
    made = report([layer(name) for name in names], title="b" * 200)
    seen = seen_by(tmp_path, PHONE.format(page=html.escape(page.render(made))))
    assert seen["wide"] == []
    assert seen["width"] == seen["shown"] == 390
    assert seen["scrolls"] >= 1


def pixels(path: Path) -> tuple[int, int, set[bytes]]:
    """Return width, height and the different filtered lines of a PNG."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert (depth, kind) in ((8, 2), (8, 6))
    packed, place = b"", 8
    while place < len(data):
        size, name = struct.unpack(">I4s", data[place : place + 8])
        packed += data[place + 8 : place + 8 + size] if name == b"IDAT" else b""
        place += size + 12
    line = 1 + width * (3 if kind == 2 else 4)
    raw = zlib.decompress(packed)
    return width, height, {raw[at : at + line] for at in range(0, len(raw), line)}


def test_screenshot_and_print(tmp_path: Path) -> None:
    path = page.write(model(3), tmp_path / "report.html")
    browse(tmp_path, "--window-size=1200,900", "--screenshot=page.png", path.as_uri())
    width, height, lines = pixels(tmp_path / "page.png")
    assert (width, height) == (1200, 900)
    assert len(lines) > 300

    browse(tmp_path, "--print-to-pdf=page.pdf", "--no-pdf-header-footer", path.as_uri())
    pdf = (tmp_path / "page.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    # A page for the verdict, a wide one for the table, and at least one a layer.
    sizes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    wide = [float(a) > float(b) for a, b in sizes]
    assert wide[:2] == [False, True]
    assert wide.count(True) == 1
    assert 3 <= len(wide) - 2 <= 6
