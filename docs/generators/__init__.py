"""What ``docs/generate.py`` writes into ``docs/reference``: one module a page."""
