"""Compressed networks for other runtimes.

What belongs here: writing a network's program in a format of others. Reading such formats, and weights alone, do not.
"""
