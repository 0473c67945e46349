"""Checks the built site: `python docs/site_faults.py docs/_build`.

It finds what a reader would stumble over and a build does not tell: links to files or anchors that
are not there, pictures without alternative text, what would make a page wider than a phone, and
what would need a network.
"""

import html.parser
import pathlib
import re
import sys
import urllib.parse

PHONE = 390  # pixels
# What the style sheets let shrink or scroll within itself.
_FLEXIBLE = {"img", "svg", "table", "pre"}
_WIDTH = re.compile(r"(?<![\w-])(?:min-)?width:\s*([\d.]+)px")


class _Page(html.parser.HTMLParser):
    """The links, pictures and widths that a page holds.

    Attributes:
        ids: its anchors.
        links: where its links and resources point to.
        faults: what is wrong with it.
    """

    def __init__(self, text: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.faults: list[str] = []
        self._viewport = False
        self._drawing = False  # within an SVG, which shrinks as a whole
        self.feed(text)
        if not self._viewport:
            self.faults.append("it has no viewport, so a phone shows it small")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        self._viewport |= given.get("name") == "viewport"
        target = given.get("href") or given.get("src")
        if target:
            self.links.append(target)
        loaded = "src" in given or (tag == "link" and given.get("rel") == "stylesheet")
        if loaded and target and re.match(r"(https?:)?//", target):
            self.faults.append(f"it loads {target}, which needs a network")
        if tag == "img" and not given.get("alt", "").strip():
            self.faults.append(f"the picture {given.get('src')} has no alternative text")
        if tag == "svg" and given.get("role") == "img" and not given.get("aria-label"):
            self.faults.append("an SVG with role=img has no aria-label")
        widths = [float(width) for width in _WIDTH.findall(given.get("style", ""))]
        if given.get("width", "").isdigit():
            widths.append(float(given["width"]))
        self._drawing |= tag == "svg"
        if not (tag in _FLEXIBLE or self._drawing) and max(widths, default=0) > PHONE:
            self.faults.append(f"a <{tag}> is {max(widths):g} pixels wide; a phone has {PHONE}")

    def handle_endtag(self, tag: str) -> None:
        self._drawing &= tag != "svg"


def faults(site: pathlib.Path) -> list[str]:
    """Returns one line for each fault of the pages in a folder.

    Raises:
        FileNotFoundError: when there are no pages.
    """
    site = site.resolve()
    pages = {
        path: _Page(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
        if "_static" not in path.relative_to(site).parts
    }
    if not pages:
        raise FileNotFoundError(f"there are no pages in {site}; build them by scripts/docs")
    found = []
    for path, page in pages.items():
        dead = [link for link in page.links if not _leads_somewhere(link, path, pages)]
        lines = [*page.faults, *(f"the link {link} leads nowhere" for link in dead)]
        found += [f"{path.relative_to(site)}: {line}" for line in dict.fromkeys(lines)]
    return found


def _leads_somewhere(link: str, path: pathlib.Path, pages: dict[pathlib.Path, _Page]) -> bool:
    """Returns whether a link of a page points to what is there; other sites are believed."""
    parts = urllib.parse.urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = path
    if parts.path:
        target = (path.parent / urllib.parse.unquote(parts.path)).resolve()
    if not target.is_file():
        return False
    anchor = urllib.parse.unquote(parts.fragment)
    return not anchor or target not in pages or anchor in pages[target].ids


if __name__ == "__main__":
    lines = faults(pathlib.Path(sys.argv[1]))
    sys.exit("\n".join(lines) if lines else 0)
