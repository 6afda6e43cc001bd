"""Reads MARCO shards, checks every record, and writes TFX Examples and a quarantine."""
