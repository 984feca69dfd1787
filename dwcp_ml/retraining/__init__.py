"""Starts training runs by schedule and by alert: the template, the window of data, the decision."""
