"""The parts of a page: its style, tables, figures."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from gnnkd.compare.grid import Grid, Item
from gnnkd.compare.pictures import svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root{color-scheme:light dark;--ink:#1b1d20;--paper:#fff;--rule:#d5d8dc;--soft:#f3f4f6}
@media (prefers-color-scheme:dark){:root{--ink:#e4e6e9;--paper:#16181c;--rule:#3b3f45;--soft:#22252a}}
@media print{:root{--ink:#000;--paper:#fff;--rule:#bbb;--soft:#fff}figure,table{break-inside:avoid}nav{display:none}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:78em;margin:2em auto;
padding:0 1em}
h1{font-size:1.6em}h2{margin-top:2.2em;border-bottom:2px solid var(--rule)}h3{margin-top:1.6em;font-size:1.05em}
figure{margin:1em 0}figure svg{max-width:100%;height:auto}figcaption,.about{font-size:.9em;max-width:60em}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9em;font-variant-numeric:tabular-nums}
th,td{padding:.2em .7em;text-align:left;border-bottom:1px solid var(--rule);white-space:nowrap}
td.n,th.n{text-align:right}tbody tr:nth-child(even){background:var(--soft)}dt{font-weight:600}dd{margin:0 0 .4em 1.5em}
a{color:inherit}code{background:var(--soft);padding:0 .2em}
"""
"""Of the whole page, for light and dark screens, and for paper."""


def table(grid: Grid) -> str:
    """A table with its caption and footnotes."""

    def sign(i: int) -> str:
        return "" if i < grid.names else ' class="n"'

    def cell(item: Item) -> str:
        said = text(item.text)
        said = f"<strong>{said}</strong>" if item.best else said
        return said + (f" {item.mark}" if item.mark else "") + "".join(f"<sup>{n}</sup>" for n in item.notes)

    head = "".join(f"<th{sign(i)}>{text(name)}</th>" for i, name in enumerate(grid.head))
    rows = (f"<tr>{''.join(f'<td{sign(i)}>{cell(item)}</td>' for i, item in enumerate(row))}</tr>" for row in grid.body)
    title = f"<h3>{text(capital(grid.title))}</h3>\n" if grid.title else ""
    notes = "".join(f"<li>{text(note)}</li>" for note in grid.notes)
    below = f'\n<p class="about">{text(grid.caption)}</p>' if grid.caption else ""
    below += f'\n<ol class="about">{notes}</ol>' if notes else ""
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'{title}<div class="wide">{body}</div>{below}'


def figure(drawn: Figure | None, name: str, alt: str, caption: str) -> str:
    """A picture with what it shows in words; nothing of None."""
    if drawn is None:
        return ""
    plain = "".join(sign if sign.isalnum() else "-" for sign in name)
    picture = svg(drawn, plain).replace("<svg", f'<svg role="img" aria-label="{text(alt)}"', 1)
    return f"<figure>{picture}<figcaption>{text(caption)}</figcaption></figure>"


def text(said: object) -> str:
    """A text inside a page."""
    return html.escape(str(said)).replace("+-", "±")


def capital(said: str) -> str:
    """A text that begins a line."""
    return said[:1].upper() + said[1:]
