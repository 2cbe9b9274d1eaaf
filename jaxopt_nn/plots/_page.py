"""One HTML file that needs nothing else: pictures are embedded, tables sort. Reports are made of it."""

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["items", "picture", "section", "table", "text_of", "write_page"]


def write_page(path: Path, title: str, sections: Sequence[str]) -> Path:
    """Writes the page; its title is plain text, its sections are HTML."""
    page = Path(__file__).with_name("_page.html").read_text(encoding="utf-8")
    page = page.replace("{title}", html.escape(title)).replace("{body}", "\n".join(sections))
    path.write_text(page, encoding="utf-8")
    return path


def section(heading: str, body: str) -> str:
    """A part of the page, with its heading; both are HTML."""
    return f"<section><h2>{heading}</h2>\n{body}</section>"


def items(lines: Sequence[str]) -> str:
    """A list of lines of HTML."""
    return "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def picture(heading: str, text: str, draw: Callable[[], Any], kind: str = "") -> str:
    """A picture with its heading and what it shows in words, both plain text.

    Args:
        heading, text: above and below.
        draw: returns matplotlib ``Axes`` or a figure.
        kind: ``"wide"`` for one that takes a row of its own.
    """
    with io.BytesIO() as buffer:
        drawn = draw()
        getattr(drawn, "figure", drawn).savefig(buffer, format="svg")
        data = base64.b64encode(buffer.getvalue()).decode()
    heading, text = html.escape(heading), html.escape(text)
    image = f'<img alt="{heading}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure class='{kind}'><h3>{heading}</h3>{image}<figcaption>{text}</figcaption></figure>"


def table(name: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table that sorts by a click on a heading; what is missing comes last."""
    head = "".join(f'<th scope="col"><button>{html.escape(each)}</button></th>' for each in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="scroll"><table id="{name}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    key = "" if value is None or value != value else repr(value) if number else str(value)
    return f'<td{" class=number" * number} data-value="{html.escape(key)}">{html.escape(text_of(value))}</td>'


def text_of(value: Any) -> str:
    """A value as a short text; what is missing is a dash."""
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(getattr(value, "__name__", value))
