"""Decision rules of other tools, implemented from their documentation, for comparison.

Nothing of those projects is copied. Each module says what it takes from which page, and what it
leaves out. Everything that is not the decision (webhooks, scaling, alerts) is left out.
"""
