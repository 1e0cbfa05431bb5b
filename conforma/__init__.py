"""conforma decides whether container images may be released.

Importing this package does nothing but name the version; every command
imports what it needs when it runs.
"""

__version__ = "0.1.0"
