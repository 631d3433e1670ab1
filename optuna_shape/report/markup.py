"""HTML of reports: texts are escaped here, and nowhere else.

A :class:`Html` is finished mark-up. Whatever else is put into an element is text, and escaped:
what a study holds (names, reasons, fingerprints) may have been written by anybody.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from collections.abc import Sequence

#: System fonts, figures aligned at the right, nothing fetched from anywhere.
STYLE = """
:root { color-scheme: light; --ink: #202124; --soft: #5f6368; --line: #dadce0; --mark: #d55e00; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; color: var(--ink); background: #fff; max-width: 960px; margin: 0 auto;
  padding: 32px 20px 64px; overflow-wrap: anywhere; }
h1 { font-size: 28px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 44px 0 10px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 16px; margin: 24px 0 6px; }
p, ul, ol { margin: 8px 0; max-width: 760px; }
.soft { color: var(--soft); font-size: 14px; }
.lead { border-left: 4px solid var(--mark); background: #fdf3ec; padding: 12px 16px;
  margin: 20px 0; font-size: 17px; max-width: none; }
small { font-size: 13px; }
.lead small { display: block; margin-top: 4px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 12px 0; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 5px 14px 5px 0;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; }
.wide td, .wide th { overflow-wrap: normal; }
.wide td:not(.number) { min-width: 8em; }
.number { text-align: right; white-space: nowrap; }
td small { display: block; color: var(--soft); white-space: normal; }
tr.marked td { background: #fdf3ec; }
code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: #f6f8fa; border: 1px solid var(--line); border-radius: 6px; padding: 12px 14px;
  white-space: pre-wrap; }
figure { margin: 4px 0 20px; break-inside: avoid; }
@media print {
  body { max-width: none; padding: 0; font-size: 11pt; }
  h2 { break-after: avoid; }
  table, pre, .lead { break-inside: avoid; }
  figure { zoom: 0.74; } /* Drawn for the screen, figures are wider than paper. */
  .modebar { display: none !important; }
}
"""


class Html(str):
    """Mark-up that needs no escaping."""

    __slots__ = ()


def element(name: str, *content: str, kind: str = "") -> Html:
    """An element with this content, escaped unless it is mark-up.

    Example:
        >>> element("p", "1 < 2", element("b", "!"), kind="soft")
        '<p class="soft">1 &lt; 2<b>!</b></p>'
    """
    attribute = f' class="{html.escape(kind)}"' if kind else ""
    return Html(f"<{name}{attribute}>{joined(content)}</{name}>")


def joined(parts: Iterable[str]) -> Html:
    """These texts and elements, one after the other."""
    return Html("".join(p if isinstance(p, Html) else html.escape(p) for p in parts))


def listed(items: Iterable[str]) -> Html:
    """A list with a point for each item."""
    return element("ul", *(element("li", item) for item in items))


def pairs(rows: Iterable[tuple[str, str]]) -> Html:
    """A table of names and what they stand for."""
    return element(
        "table",
        element(
            "tbody",
            *(element("tr", element("th", name), element("td", text)) for name, text in rows),
        ),
    )


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    texts: Sequence[str] = (),
    marked: int | None = None,
) -> Html:
    """A table whose columns hold numbers, aligned at the right.

    Args:
        headings: Of the columns.
        rows: Their cells.
        texts: Headings of the columns that hold words.
        marked: The row that stands out.
    """
    kinds = ["" if heading in texts else "number" for heading in headings]

    def row(name: str, cells: Sequence[str], kind: str = "") -> Html:
        return element(
            "tr", *(element(name, cell, kind=k) for cell, k in zip(cells, kinds)), kind=kind
        )

    body = [row("td", cells, "marked" if i == marked else "") for i, cells in enumerate(rows)]
    inner = (element("thead", row("th", headings)), element("tbody", *body))
    return element("div", element("table", *inner), kind="wide")


def document(title: str, head: Html, body: Iterable[str]) -> str:
    """A whole page.

    Args:
        title: Of the window.
        head: What stands in the head besides.
        body: Elements of the page.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{element('title', title)}\n<style>{STYLE}</style>\n{head}\n</head>\n<body>\n"
        + "\n".join(joined([part]) for part in body)
        + "\n</body>\n</html>\n"
    )
