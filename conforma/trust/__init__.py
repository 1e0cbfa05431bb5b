"""Who said what about an image, and whether to believe it."""
