"""Readings of nodes, the released model served on them, drift, and what follows from it."""
