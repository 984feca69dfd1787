"""What random ModelRollouts and TrainingRuns have in common: how a document gets to the server."""

import numpy as np

from tests.operator.admission import admitted


class RandomObject:
    """One run, by its seed: every second one behind an API server with today's definition.

    ``good`` is the document that a run begins with and is restored to. A kind defines ``spec``,
    what is stored now, and ``edit``, which lets somebody change the stored object.
    """

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.guarded = seed % 2 == 0
        self.good = {}
        self.refused = 0

    def taken(self, document, old=None):
        """Return what the server stores of a document; ``None`` where it rejects it."""
        if not self.guarded:
            return document
        made, told = admitted(document, old)
        if told:
            self.refused += 1
            return None
        return made

    def put(self, document):
        """Have a document stored in place of the one there is; return whether it was."""
        written = self.taken(document, {**self.good, "spec": self.spec})
        if written is None:
            return False

        def change(one):
            one.pop("spec", None)
            one.update({key: value for key, value in written.items() if key == "spec"})

        self.edit(change)
        return True

    @staticmethod
    def check_sentence(message):
        """What is said to people is one sentence."""
        assert message.endswith("."), message
        assert "\n" not in message, message
