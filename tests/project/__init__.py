"""Tests of what lies at the root of the repository: how it is packaged, installed, started and tested."""
