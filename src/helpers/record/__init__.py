"""Headline numbers, and the record of a study that a data centre accepts."""
