"""Telemetry from the files of other tools: iperf3, ping, Prometheus, traces as CSV.

- ``options``: how a column of the contract is taken from a file: mapping, unit, constants
- ``iperf3``, ``ping``, ``prometheus``, ``table``: one format each, as a stream of rows
- ``conversion``: writes the rows as telemetry, with the columns that have a value
"""
