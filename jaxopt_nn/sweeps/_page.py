"""The page of a report: its style, and the script that sorts its tables. It loads nothing."""

__all__ = ["PAGE"]

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto; padding: 1rem; max-width: 80rem; }
h1 { margin: 0.2em 0; } h2 { margin: 1.5em 0 0.5em; border-bottom: 1px solid #ccc; } h3 { margin: 0 0 0.3em; font-size: 1rem; }
.plots { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
figure { margin: 0; } img { width: 100%; height: auto; } figcaption { color: #555; font-size: 0.9rem; }
.scroll { overflow: auto; max-height: 36rem; border: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 0.9rem; width: 100%; }
th { position: sticky; top: 0; background: #eee; text-align: left; padding: 0; }
th button { font: inherit; font-weight: 600; background: none; border: 0; padding: 0.4em 0.6em; width: 100%; text-align: inherit; cursor: pointer; white-space: nowrap; }
th[aria-sort=ascending] button::after { content: " \\2191"; } th[aria-sort=descending] button::after { content: " \\2193"; }
td { padding: 0.25em 0.6em; border-top: 1px solid #eee; white-space: nowrap; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
</style>
</head>
<body>
<h1>{title}</h1>
{body}
<script>
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach(each => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
    const value = row => row.cells[column].dataset.value;
    const order = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
    const rows = [...body.rows];
    // What is missing comes last, whichever way.
    rows.sort((a, b) => (value(a) === "") - (value(b) === "") || down * order(value(a), value(b)));
    body.append(...rows);
  }));
}
</script>
</body>
</html>
"""
