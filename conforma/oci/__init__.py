"""What an image is and how it is fetched.

Values first (``digest``, ``reference``, ``manifest``), then the one way to a
registry (``registry``) over the one way to a socket (``transport``).
"""
