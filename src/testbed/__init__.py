"""A virtual Northeast China with a hidden truth, to test methods; nothing in `helpers` needs it."""
