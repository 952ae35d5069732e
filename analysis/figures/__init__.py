"""Figures of a sweep. `study` draws those of the study; the reports of the other commands draw from here.

style: colours, markers, axes. sheet: title, basis and legend around the axes, and files of equal bytes for
equal input. plane: architectures in a plane with its frontier. rd: PSNR over rate. savings: rate saving over
rate. times, ranks: FLOPs against decode time. published: the study's own table.
"""

from analysis.figures.plane import draw_frontier
from analysis.figures.rd import draw_rd
from analysis.figures.sheet import Drawn
from analysis.figures.style import COLOURS, MARKERS, axis_text, family_styles

__all__ = ["COLOURS", "MARKERS", "Drawn", "axis_text", "draw_frontier", "draw_rd", "family_styles"]
