"""`python -m mirrorback`: the same as the command `mirrorback`."""

from mirrorback.cli.app import main

if __name__ == "__main__":
    main()
