"""Trains, proves, serves and safely rolls out the four models of DWCP."""

__version__ = "0.1.0"
