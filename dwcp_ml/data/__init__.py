"""Telemetry to training examples: read, validate, version, split, window, label.

- ``reading``: stream a CSV or Parquet file; load a whole one, sorted
- ``validation``: the checks of the data contract, the quarantine, the clean copy
- ``partition_validation``, ``partials``: the same for a data set of several files, merged
- ``partitions``: such a data set as one source
- ``sampling``: a random sample of more rows than a model may read
- ``incidents``: labelled incidents, and the rows that they label positive
- ``splits``: the training, validation and test splits
- ``windows``: runs of consecutive rows that cross no link, gap or split; episodes
- ``features``: the input features of a model
- ``oracle``: the best compression level of each row
- ``examples``: the examples of one model, built from all of these
- ``versioning``: md5, size and the ``.dvc`` pointer
- ``schema``: the contract as JSON and as a table
"""
