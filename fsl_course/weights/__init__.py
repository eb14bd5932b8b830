"""Learners by name and settings, and their weights on disk: those of a run, and those that ship with the course."""
