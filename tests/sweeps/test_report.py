"""The report: one file that opens offline, says what was found, and sorts."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from jaxopt_nn import sweeps

pytest.importorskip("matplotlib")
RNG = np.random.default_rng(0)
PROBE = """<script>
window.addEventListener("error", event => { document.body.dataset.error = event.message; });
window.addEventListener("load", () => {
  const table = document.querySelector("#configurations"), heads = [...table.tHead.rows[0].cells];
  const column = name => heads.findIndex(head => head.innerText.trim() === name);
  const read = name => [...table.tBodies[0].rows].map(row => row.cells[column(name)].innerText);
  const click = name => heads[column(name)].querySelector("button").click();
  const seen = {start: read("rate")};
  click("rate"); seen.up = read("rate"); seen.aria = heads[column("rate")].getAttribute("aria-sort");
  click("rate"); seen.down = read("rate");
  click("kind"); seen.kind = read("kind");
  click("rank"); click("rank"); seen.rank = read("rank");
  seen.images = [...document.images].map(image => image.naturalWidth > 0);
  seen.error = document.body.dataset.error || null;
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const output = document.createElement("pre");
  output.id = "seen"; output.textContent = JSON.stringify(seen); document.body.append(output);
});
</script>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    def record(rate, kind, seed):
        curve = rate + 0.1 * RNG.random() + np.array([2.0, 1.0, 0.5])
        if rate == 100.0:
            return "NONFINITE_TRAINING", None, {}, {}
        return "COMPLETED", None, {"valid_loss": float(curve[-1])}, {"valid_loss": curve}

    trials = sweeps.grid(rate=[9.0, 10.0, 0.5, 100.0], kind=["<b>", "a"], seed=range(3))
    records = [sweeps.Record(trial, *record(**trial), 0.1) for trial in trials]
    records[0] = records[0]._replace(status="FAILED", error="ValueError: <script>alert(1)</script>", metrics={})
    result = sweeps.Sweep(tuple(records), "valid_loss", "min", True)
    return result.report(tmp_path_factory.mktemp("report") / "sweep.html", title="Digits & <co>")


def test_it_holds_everything_and_asks_the_network_for_nothing(report):
    text = report.read_text()
    assert "<h1>Digits &amp; &lt;co&gt;</h1>" in text and "<script>alert" not in text
    outside = set(re.findall(r"""(?:src|href)=["'](?!data:)[^"']*""", text)) | set(re.findall(r"@import|url\(", text))
    assert not outside and text.count("<script>") == 1
    words = re.sub(r"<[^>]+>", "", text)
    assert "the best of 5" in words and "The sweep was interrupted" in words
    assert "1 FAILED, 6 NONFINITE_TRAINING" in words and "rate=0.5 lies on the low edge of your space" in words
    assert "ValueError: &lt;script&gt;" in text  # the trial that failed, with its error
    for heading in ("Curves", "Isolation: rate", "Heat map", "Parallel coordinates", "Slice: kind"):
        assert f"<h3>{heading}</h3>" in text


def test_a_browser_shows_and_sorts_it_without_an_error(report, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium")
    page = tmp_path / "probed.html"
    page.write_text(report.read_text().replace("</head>", PROBE + "</head>"))
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--window-size=500,800",
    ]
    done = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    (seen,) = re.findall(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    seen = json.loads(seen.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert "CONSOLE" not in done.stderr and seen["error"] is None
    assert seen["images"] and all(seen["images"]) and seen["overflow"] <= 0
    assert (
        sorted(seen["start"], key=float)
        == seen["up"]
        == seen["down"][::-1]
        == ["0.5"] * 2 + ["9"] * 2 + ["10"] * 2 + ["100"] * 2
    )
    assert seen["aria"] == "ascending" and seen["kind"] == ["<b>"] * 4 + ["a"] * 4
    assert seen["rank"] == ["5", "4", "3", "2", "1", "–", "–", "–"]  # what has no rank stays last


def test_a_sweep_in_which_nothing_ended_well_has_a_report_too(tmp_path):
    record = sweeps.Record({"rate": 1.0}, "FAILED", "ValueError: no", {}, {}, 0.0)
    text = sweeps.Sweep((record,), "valid_loss", "min", False).report(tmp_path / "sweep.html").read_text()
    assert "No configuration ended well" in text and "ValueError: no" in text
