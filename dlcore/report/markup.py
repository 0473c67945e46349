"""Builds HTML. Every string that is not `Html` already is escaped as text."""

import html
from collections.abc import Iterable, Sequence
from urllib.parse import quote

import numpy as np

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222 }
img { max-width: 100%; height: auto }
.wide { overflow-x: auto }
h1 { overflow-wrap: anywhere }
nav a { display: inline-block; margin-right: 1rem }
summary { cursor: pointer; color: #555 }
table { border-collapse: collapse }
td, th { padding: .2rem 1.5rem .2rem 0; border-bottom: 1px solid #ddd; text-align: left;
         vertical-align: top; font-weight: normal; overflow-wrap: break-word;
         white-space: pre-wrap }
th { color: #555; white-space: nowrap }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border-left: 3px solid #ddd;
      padding-left: 1rem }
mark { background: #ffd9a8 }
.heat { font-family: ui-monospace, monospace; line-height: 2; overflow-wrap: anywhere;
        white-space: pre-wrap }
.heat span { border-bottom: .35em solid }
"""


class Html(str):
    """A string of HTML, which is not escaped again."""


def escape(value: object) -> Html:
    """Escapes text; returns HTML as it is.

    >>> escape("a < b")
    'a &lt; b'
    """
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def paragraph(text: str) -> Html:
    """Makes a paragraph."""
    return Html(f"<p>{escape(text)}</p>")


def heading(text: str) -> Html:
    """Makes a heading inside a section."""
    return Html(f"<h3>{escape(text)}</h3>")


def preformatted(text: str) -> Html:
    """Makes a block of text whose white space is kept."""
    return Html(f"<pre>{escape(text)}</pre>")


def picture(name: str) -> Html:
    """Shows a picture whose file lies beside the page; a click opens it alone, for zooming."""
    file, title = escape(name), escape(name.rpartition(".")[0])
    return Html(f'<a href="{file}"><img src="{file}" alt="{title}"></a>')


def link(target: str, text: str) -> Html:
    """Links to another page, by its path from this one."""
    return Html(f'<a href="{escape(quote(target))}">{escape(text)}</a>')


def folded(title: str, content: Html) -> Html:
    """Makes a part that shows only its title until it is clicked."""
    return Html(f"<details><summary>{escape(title)}</summary>{content}</details>")


def table(rows: Iterable[Sequence[object]], *, header: Sequence[object] = ()) -> Html:
    """Makes a table; the first cell of each row names the row."""
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in header)}</tr>"] if header else []
    for first, *others in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
        lines.append(f"<tr><th>{escape(first)}</th>{cells}</tr>")
    return join(['<div class="wide"><table>', *lines, "</table></div>"])


def heat(
    tokens: Sequence[str], weights: np.ndarray, *, most: float | None = None, separator: str = " "
) -> Html:
    """Makes a text with a bar under each token, which is redder for a greater weight.

    Args:
        tokens: T tokens.
        weights: [T], at least 0.
        most: the weight of the reddest bar; by default the greatest of `weights`.
        separator: the text between two tokens.
    """
    most = most or float(np.max(weights, initial=0)) or 1.0
    spans = [
        f'<span style="border-color: rgb(213 94 0 / {min(weight / most, 1):.2f})" '
        f'title="{weight:.3g}">{_visible(token)}</span>'
        for token, weight in zip(tokens, np.asarray(weights).tolist(), strict=True)
    ]
    return Html(f'<p class="heat">{escape(separator).join(spans)}</p>')


def _visible(token: str) -> str:
    """Makes the line ends in a token visible."""
    return escape(token).replace("\n", "⏎\n")


def join(parts: Iterable[str]) -> Html:
    """Joins pieces of HTML."""
    return Html("".join(parts))


def page(title: str, sections: Iterable[tuple[str, Html]]) -> Html:
    """Makes a whole page of sections (title, content), with their list at its top."""
    sections = [*sections]
    links = (
        f'<a href="#section-{i}">{escape(name)}</a>' for i, (name, _) in enumerate(sections, 1)
    )
    body = "\n".join(
        f'<h2 id="section-{i}">{escape(name)}</h2>\n{content}'
        for i, (name, content) in enumerate(sections, 1)
    )
    return Html(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n<nav>{join(links)}</nav>\n{body}\n</body></html>\n"
    )
