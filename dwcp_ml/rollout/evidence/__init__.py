"""The sequential tests of a rollout: small states that blocks of raw counts are added to.

Each state is frozen, JSON, and of a bounded size. ``update`` returns a new one, ``verdict`` says
what it shows. All of them may be looked at after every block, and two blocks may come as one.
"""
