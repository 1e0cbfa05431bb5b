"""Layers on disk, shared by threads and processes; ``DESIGN.md`` beside this file tells how."""
