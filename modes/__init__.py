"""What the community draws with: the modes of modes.yaml."""
