"""Loaded pipelines beside a device, one file per family of models."""
