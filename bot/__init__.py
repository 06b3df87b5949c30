"""What people type and see: the one process that talks."""
