"""Slash commands, one file per feature."""
