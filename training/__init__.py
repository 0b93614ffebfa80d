"""Offline stages from interactions to a sealed bundle, each from directory to directory.

Knows nothing of HTTP. Importing it does nothing.
"""
