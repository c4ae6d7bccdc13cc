"""The setting in which known users meet policies."""

K, HORIZON = 3, 20
"""items of a slate, events of an episode and of a logged session"""
