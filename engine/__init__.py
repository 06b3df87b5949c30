"""Requests in, images out; knows no chat, no database and no YAML."""
