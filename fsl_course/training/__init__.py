"""The training loop, and beside it what makes a long run survive: saving, several processes, live curves."""
