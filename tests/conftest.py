"""Settings that every test shares."""

import os

import pytest
from hypothesis import settings

# Tiny models are slower with two threads than with one wherever the machine is busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing here may reach for a model hub.
os.environ["HF_HUB_OFFLINE"] = "1"

# Timing never decides a test.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# A failed assertion in a kit shows its values, as one in a test does.
pytest.register_assert_rewrite("tests.discord_kit")
