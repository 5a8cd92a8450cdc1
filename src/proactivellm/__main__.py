"""`python -m proactivellm` is the command line."""

from proactivellm.cli import main

if __name__ == "__main__":
    main()
