"""Events that start at random, last for a while, and are known once they have started."""

from dataclasses import dataclass

import numpy as np

from dwcp_ml.contract.arrays import Floats, Ints


@dataclass
class EventTrack:
    """Sum of event contributions at each step of each channel (a link or a node), shape (T, C).

    `next_known` at step t is the contribution at step t + 1 of the events that have started by step
    t: what a forecaster with the full hidden state at t knows about t + 1.
    """

    now: Floats
    next_known: Floats

    @classmethod
    def empty(cls, steps: int, channels: int) -> "EventTrack":
        """Return a track without events."""
        return cls(np.zeros((steps, channels)), np.zeros((steps, channels)))

    def add(self, start: int, channel: int, profile: Floats) -> None:
        """Add an event: `profile` (duration,) is its contribution from step `start` on."""
        steps = len(self.now)
        length = min(len(profile), steps - start)
        self.now[start : start + length, channel] += profile[:length]
        self.next_known[start : start + length - 1, channel] += profile[1:length]

    def spread(self, channel_of: Ints) -> "EventTrack":
        """Give every link the contributions of its node: column k is column `channel_of[k]`."""
        return EventTrack(self.now[:, channel_of], self.next_known[:, channel_of])

    def plus(self, other: "EventTrack") -> "EventTrack":
        """Sum of two tracks of one shape."""
        return EventTrack(self.now + other.now, self.next_known + other.next_known)


def poisson_starts(rng: np.random.Generator, steps: int, per_step: float, spacing: int = 0) -> Ints:
    """Start steps of a Poisson process, `spacing` steps apart at least (later ones are dropped)."""
    starts = np.sort(rng.integers(0, steps, rng.poisson(steps * per_step)))
    if spacing:
        spaced: list[int] = []
        for start in starts:
            if not spaced or start - spaced[-1] >= spacing:
                spaced.append(int(start))
        return np.array(spaced, dtype=np.int64)
    return starts
