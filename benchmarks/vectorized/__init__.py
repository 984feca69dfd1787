"""Many simulated rollouts of one scenario in lockstep, as numpy arrays over the rollouts."""
