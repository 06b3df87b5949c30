"""Which front ends have their results brought, and which have their jobs go on after a restart."""

CARRIED = frozenset({"discord"})
"""Front ends whose results a courier brings; the others fetch theirs."""

RESUMED = ("discord", "web")
"""Front ends whose jobs go on after a restart. A command draws its own jobs or nobody does."""
