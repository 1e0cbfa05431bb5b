"""Verification summaries, published as TUF metadata that scales with its writers."""
