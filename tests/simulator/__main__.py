"""`python -m tests.simulator` is `python -m simulator`, by the name that the documents gave it first."""

from simulator.__main__ import main

if __name__ == "__main__":
    main()
