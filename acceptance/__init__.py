"""What the features need: services on loopback, and steps that act on them."""
