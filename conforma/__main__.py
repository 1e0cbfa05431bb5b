"""``python -m conforma`` is the same program as ``conforma``."""

from conforma.cli import main

if __name__ == "__main__":
    main()
