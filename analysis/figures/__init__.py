"""Figures of a sweep. `study` draws those of the study; the reports of the other commands draw from here.

style: axes and legend entries; colours and markers are those of `analysis.families`. sheet: title, basis and
legend around the axes, and files of equal bytes for equal input. plane: architectures in a plane with its
frontier. rd: PSNR over rate. savings: rate saving over rate. lines: what these two share. times, ranks:
decode complexity against decode time. published: the study's own table.
"""

from analysis.families import COLOURS, MARKERS, family_styles
from analysis.figures.plane import draw_frontier
from analysis.figures.rd import draw_rd
from analysis.figures.sheet import Drawn
from analysis.figures.style import axis_text

__all__ = ["COLOURS", "MARKERS", "Drawn", "axis_text", "draw_frontier", "draw_rd", "family_styles"]
