"""The demo model's own training: pictures drawn by rule, networks trained on them, a checker."""
