"""Servers of two checkouts under the same load: what ``bench_servers`` is made of."""
