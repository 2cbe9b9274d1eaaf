"""The site: what it is made of, and as `make docs` built it, in a browser."""

import ast
import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SITE = ROOT / "out" / "docs"
STUDIES = sorted((ROOT / "examples").glob("*.py"))

# Opens each page in a frame as wide as a phone, one after the other, and says what it saw.
PROBE = """<!DOCTYPE html><link rel="icon" href="data:,"><iframe id="frame" width="390" height="844"></iframe><script>
const frame = document.getElementById("frame"), seen = [];
const wait = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
const open = address => new Promise(resolve => { frame.onload = resolve; frame.src = address; });
(async () => {
  for (const address of PAGES) {
    await open(address);
    const page = frame.contentDocument, root = page.documentElement;
    const beyond = [...page.querySelectorAll("main *, article *")].filter(
      each => each.getBoundingClientRect().right > root.clientWidth + 1 &&
      !each.closest(".table-wrapper, pre, .highlight, .scroll, .math, dt, svg, [hidden], table"));
    seen.push({address, heading: page.querySelector("h1")?.innerText || "", width: root.clientWidth,
      overflow: root.scrollWidth - root.clientWidth,
      wide: beyond.slice(0, 3).map(each => each.tagName + "." + each.className + ": " + each.innerText?.slice(0, 60))});
  }
  await open("search.html?q=early+stopping");
  for (let turn = 0; turn < 100 && !/found/.test(frame.contentDocument.body.innerText); turn++) await wait(100);
  const results = [...frame.contentDocument.querySelectorAll("#search-results li a")].map(each => each.innerText);
  await fetch("/seen", {method: "POST", body: JSON.stringify({pages: seen, results})});
})();
</script>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site and the probe, and keeps what the probe says and what is missing."""

    def do_GET(self):
        if self.path != "/probe":
            return super().do_GET()
        addresses = [str(path.relative_to(SITE)) for path in sorted(SITE.rglob("*.html")) if path.name != "search.html"]
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PROBE.replace("PAGES", json.dumps(addresses)).encode())

    def do_POST(self):
        self.server.seen = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.server.done.set()

    def send_error(self, code, message=None, explain=None):
        self.server.missing.append(self.path)
        super().send_error(code, message, explain)

    def log_message(self, *arguments):
        pass


@pytest.mark.slow
def test_a_browser_shows_the_site(tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None or not (SITE / "search.html").is_file():
        pytest.skip("there is no Chromium, or no site: make docs")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=SITE))
    server.done, server.missing, server.seen = threading.Event(), [], {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/probe"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1000,1000"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0"]  # so that it stays open
    with open(tmp_path / "said", "w") as said:
        process = subprocess.Popen([browser, *options, address], stderr=said, stdout=subprocess.DEVNULL)
        try:
            assert server.done.wait(300), "the browser did not come to an end"
        finally:
            process.terminate()
            process.wait()
            server.shutdown()
            server.server_close()
    assert server.missing == []
    assert not [line for line in (tmp_path / "said").read_text().splitlines() if "CONSOLE" in line]
    pages = {page.pop("address"): page for page in server.seen["pages"]}
    assert {"index.html", "course.html", "gallery/index.html", "gallery/demo.html"} <= set(pages)
    assert {page["width"] for page in pages.values()} <= {375, 390}  # with and without a bar to scroll
    assert [name for name, page in pages.items() if not page["heading"]] == []
    assert {name: page for name, page in pages.items() if page["overflow"] > 0 or page["wide"]} == {}
    assert any("EarlyStopping" in result for result in server.seen["results"])


@pytest.mark.slow
def test_each_study_is_shown_and_can_be_downloaded():
    if not (SITE / "gallery" / "index.html").is_file():
        pytest.skip("there is no site: make docs")
    index = (SITE / "gallery" / "index.html").read_text()
    for path in STUDIES:
        page = (SITE / "gallery" / f"{path.stem}.html").read_text()
        assert f"{path.stem}.html" in index
        assert len(list((SITE / "_images").glob(f"sphx_glr_{path.stem}_thumb*"))) == 1
        (notebook,) = (SITE / "_downloads").rglob(f"{path.stem}.ipynb")
        cells = json.loads(notebook.read_text())["cells"]
        written = len(re.findall(r"^# %% \[markdown\]", path.read_text(), re.M))
        assert [cell["cell_type"] for cell in cells].count("markdown") >= written + 1
        assert f"_downloads/{notebook.parent.name}/{notebook.name}" in page


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_studies_are_written_as_the_gallery_reads_them(path):
    text = path.read_text()
    lines = ast.get_docstring(ast.parse(text)).splitlines()
    assert lines[1] == "=" * len(lines[0]), "the docstring begins with a title that is underlined"
    assert not re.findall(r"^# %%\n+#.*", text, re.M), "a code cell that begins with a comment is read as text"
    cells = re.findall(r"^# %% \[markdown\]\n((?:#.*\n)*)", text, re.M)
    assert all(cells), "a text cell is comment lines"
    assert not [cell for cell in cells if re.search(r"^# #+ |(?<!`)`[^`]+`(?!`)|\]\(http", cell, re.M)], (
        "Markdown alone"
    )
    assert '"--quick" in sys.argv' in text
    assert not re.search(r"\bexit\(", text), "it would end the build of the site, as if that had been well"


def test_the_course_leads_through_every_study():
    text = (ROOT / "docs" / "course.md").read_text()
    missing = {path.stem for path in STUDIES} - set(re.findall(r"\]\(gallery/(\w+)\.rst\)", text))
    assert missing == set()
