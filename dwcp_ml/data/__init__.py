"""From a telemetry file to examples: read, validate, version, split, window, label.

- ``reading``: stream a CSV or Parquet file; load a whole one, sorted
- ``validation``: the contract's checks, the quarantine, the clean copy
- ``incidents``: labelled incidents, and the rows that they make positive
- ``splits``: what is trained on, validated on and tested on
- ``windows``: runs of consecutive rows that cross no link, gap or split
- ``features``: the numbers that a model reads
- ``oracle``: the compression level that would have been best
- ``examples``: all of that, for one model
- ``versioning``: md5, size and the ``.dvc`` pointer
- ``schema``: the contract as JSON and as a table
"""
