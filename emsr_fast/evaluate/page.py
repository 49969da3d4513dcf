"""The report as one HTML page: it needs no network and no library, and can be read without scripts."""

from __future__ import annotations

import re
from html import escape
from importlib import resources
from typing import Any

from emsr_fast import __version__
from emsr_fast.evaluate.curves import charts
from emsr_fast.evaluate.measures import DEFINITIONS
from emsr_fast.evaluate.number_format import cell
from emsr_fast.evaluate.panels import Row, rows_to_show
from emsr_fast.evaluate.results import Evaluation
from emsr_fast.evaluate.summary import left_out_in_short, summary
from emsr_fast.evaluate.tables import columns_of, means
from emsr_fast.evaluate.trust import trust_section

# the page itself forbids the browser to load anything from elsewhere
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_NAMES = {"sr": "SR", "bicubic": "bicubic", "reference": "reference", "second scan": "second scan"}
_BUTTONS = (("in", "zoom in", "+"), ("out", "zoom out", "&minus;"), ("reset", "whole image", "fit"))


def page(evaluation: Evaluation) -> str:
    """Return the whole page."""
    title = f"Evaluation of {evaluation.inputs.sr.info.path.name}"
    sections = [
        "".join(_sentences(heading, told) for heading, told in summary(evaluation)),
        f"<h2>Images</h2>{_viewer(rows_to_show(evaluation))}",
        f"<h2>Figures</h2>{_means(evaluation)}",
        f"<h2>Curves</h2><div class='charts'>{''.join(charts(evaluation))}</div>",
        *([trust_section(evaluation.trust.as_json())] if evaluation.trust.expected else []),
        f"<h2>Slice by slice</h2>{_slices(evaluation)}",
        f"<h2>Volumes</h2>{_volumes(evaluation)}",
    ]
    body = "".join(f"<section>{section}</section>" for section in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_file('page.css')}</style></head><body><main><h1>{escape(title)}</h1>{body}"
        f"<footer>emsr_fast {__version__}; the same figures are in slices.csv and report.json</footer></main>"
        f"<script>{_file('viewer.js')}</script></body></html>\n"
    )


def _file(name: str) -> str:
    return (resources.files("emsr_fast.evaluate") / name).read_text(encoding="utf-8")


def _sentences(heading: str, told: list[str]) -> str:
    items = "".join(
        f"<li{' class=warning' if sentence.startswith('Warning') else ''}>{_text(sentence)}</li>" for sentence in told
    )
    return f"<h2>{escape(heading)}</h2><ul>{items}</ul>"


def _viewer(rows: list[Row]) -> str:
    choices = "".join(f'<option value="{number}">{escape(row.title)}</option>' for number, row in enumerate(rows))
    buttons = "".join(
        f'<button type="button" data-do="{action}" aria-label="{label}">{text}</button>'
        for action, label, text in _BUTTONS
    )
    views = []
    for number, row in enumerate(rows):
        figures = "".join(
            f"<figure><figcaption>{escape(panel.title)}<small>{escape(panel.note)}</small></figcaption>"
            f'<div class="view" tabindex="0" role="group" aria-label="{escape(panel.title)}, zoomable" '
            f'style="aspect-ratio:{row.shape[1]}/{row.shape[0]}">'
            f'<img alt="{escape(f"{panel.title}, {row.title}")}" src="{panel.url}" '
            f'width="{panel.shape[1]}" height="{panel.shape[0]}" draggable="false"></div></figure>'
            for panel in row.panels
        )
        views.append(f'<div class="row" data-row="{number}"><p class="place">{escape(row.title)}</p>{figures}</div>')
    help_text = (
        "Wheel or + and - to zoom, drag or arrow keys to move, 0 for the whole image, double click to zoom in: all "
        "images of a place move together. Grey values are those after the fit."
    )
    return (
        f'<div id="viewer"><p class="tools"><label>Place <select data-do="row">{choices}</select></label>{buttons}'
        f'<output aria-live="polite"></output></p><p class="help">{help_text}</p>{"".join(views)}</div>'
    )


def _means(evaluation: Evaluation) -> str:
    found = means(evaluation)
    heads = "".join(f'<th scope="col">{_NAMES[image]}</th>' for image in found)
    lines = []
    for figure in columns_of(evaluation):
        cells = []
        for figures in found.values():
            one = figures.get(figure)
            spread = f" <small>± {cell(one['sd'])}</small>" if one and one["n"] > 1 and one["sd"] == one["sd"] else ""
            cells.append(f"<td>{cell(one['mean'])}{spread}</td>" if one else "<td>&ndash;</td>")
        words = f'<td class="words">{escape(DEFINITIONS[figure])}</td>'
        lines.append(f'<tr><th scope="row">{figure}</th>{"".join(cells)}{words}</tr>')
    caption = f"Mean ± standard deviation over {len(evaluation.samples)} slices that have the figure"
    if evaluation.skipped:
        caption += f"; {left_out_in_short(evaluation)}"
    return (
        f'<div class="wide"><table><caption>{caption}</caption><thead><tr><th scope="col">figure</th>{heads}'
        f'<th scope="col" class="words">what it is</th></tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _slices(evaluation: Evaluation) -> str:
    columns = columns_of(evaluation)
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("slice", "rows", "columns", "image", *columns))
    lines = "".join(
        f'<tr><th scope="row">{row["slice"]}</th><td>{row["y0"]}:{row["y1"]}</td><td>{row["x0"]}:{row["x1"]}</td>'
        f"<td>{_NAMES[row['image']]}</td>{_cells(row, columns)}</tr>"
        for row in evaluation.table()
    )
    return f'<div class="wide" tabindex="0"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cells(row: dict[str, Any], columns: list[str]) -> str:
    if reason := row.get("left_out"):
        return f'<td class="words" colspan="{len(columns)}">left out: {escape(reason)}</td>'
    return "".join(f"<td>{cell(row.get(name))}</td>" for name in columns)


def _text(sentence: str) -> str:
    """Return a sentence as HTML, with the settings that it names (`pixel_nm`) as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(sentence))


def _volumes(evaluation: Evaluation) -> str:
    inputs = evaluation.inputs
    volumes = {"SR": inputs.sr, "LR": inputs.lr, "reference": inputs.reference, "second scan": inputs.second_scan}
    lines = [
        f'<tr><th scope="row">{name}</th><td class="words">{escape(volume.info.path.name)}</td>'
        f"<td>{' x '.join(map(str, volume.shape))}</td><td>{volume.dtype.name}</td>"
        f"<td>{escape(volume.info.format)}</td></tr>"
        for name, volume in volumes.items()
        if volume is not None
    ]
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("volume", "file", "Z, Y, X", "dtype", "format"))
    known = "; ".join(f"{name} {value}" for name, value in vars(inputs.provenance).items() if value is not None)
    return (
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
        f"<p>SR says of itself: {escape(known or 'nothing')}.</p>"
    )
