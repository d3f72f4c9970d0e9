"""Rounds on a whole installation while its processes are killed and its storage fails.

`make faults` runs it; docs/faults.md tells what is killed, what happens then, and the figures.
"""
