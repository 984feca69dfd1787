"""The rollout decision: pure, without a clock, a network or a file."""
