"""Leaks: signs in the data alone, without any model, that inputs hold what is to be predicted.

``foreknowledge`` compares what a column knows of the next value with what it knows of the present
one, ``labels`` looks for columns that hold nothing but the label, and ``rows`` for rows, orders and
losses of rows that depend on the label. docs/evaluation.md has the limits and their measured null.

The idea that data should be searched for leaks before a model is believed: Kaufman, Rosset, Perlich
and Stitelman, Leakage in data mining, ACM TKDD 6 (2012), 15.
"""

from dwcp_ml.evaluation.leaks.find import LeakData, LeakSearch, NotSearched, find_leaks, search
from dwcp_ml.evaluation.leaks.table import LeakRows, Lost
from dwcp_ml.evaluation.leaks.text import describe

__all__ = [
    "LeakData",
    "LeakRows",
    "LeakSearch",
    "Lost",
    "NotSearched",
    "describe",
    "find_leaks",
    "search",
]
