"""Results as text: one module for each format, and the targets they are written to."""
