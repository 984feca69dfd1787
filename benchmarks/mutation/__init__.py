"""Mutation tests: what is broken, how, in which process, and who must notice.

- ``changes.py``: every small change of one operator, constant or call
- ``named.py``: the changes that must never go unnoticed
- ``modules.py``: the pure modules, and the tests that are responsible for each
- ``running.py``: one mutant in one forked process
"""
