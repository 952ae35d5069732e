"""LaTeX tables: booktabs rules, numbers flush right with equal decimals, every text escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # a straight one needs an encoding that is not the default
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_NUMBER = re.compile(r"[+-]?\d[\d.]*(?:e[+-]?\d+)?")


def escape(text: str) -> str:
    """Text as LaTeX prints it, on one line; hyphens stay hyphens where there are several."""
    return "".join(_SPECIAL.get(sign, sign) for sign in " ".join(text.split())).replace("--", "-{}-")


def number(text: str) -> str:
    """A printed number with a true minus; other cells, such as '-' for none, as text."""
    if not _NUMBER.fullmatch(text):
        return "--" if text == "-" else escape(text)
    return f"${text}$" if text[0] in "+-" else text


def booktabs(
    heads: Sequence[tuple[str, str]],
    body: Sequence[Sequence[str]],
    *,
    caption: str,
    label: str,
    texts: int = 1,
    notes: Sequence[str] = (),
) -> str:
    """A table environment of its own. heads: two lines per column; body: cells as printed in text tables.

    texts: so many first columns are text, flush left; the others are numbers. notes: small print below.
    """
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        "  \\small",
        f"  \\caption{{{escape(caption)}}}",
        f"  \\label{{{label}}}",
        f"  \\begin{{tabular}}{{{'l' * texts}{'r' * (len(heads) - texts)}}}",
        "    \\toprule",
    ]
    for line in (0, 1):
        if any(head[line] for head in heads):
            lines.append(f"    {' & '.join(escape(head[line]) for head in heads)} \\\\")
    lines.append("    \\midrule")
    for row in body:
        cells = [escape(cell) for cell in row[:texts]] + [number(cell) for cell in row[texts:]]
        lines.append(f"    {' & '.join(cells)} \\\\")
    lines += ["    \\bottomrule", "  \\end{tabular}"]
    if notes:
        lines += ["", "  \\smallskip", "  \\begin{minipage}{\\linewidth}\\footnotesize"]
        lines += [f"    {escape(note)}\\par" for note in notes]
        lines.append("  \\end{minipage}")
    return "\n".join([*lines, "\\end{table}", ""])
