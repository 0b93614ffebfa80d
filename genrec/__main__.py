"""`python -m genrec`, for launchers such as torchrun that start a module."""

from genrec.commands import main

if __name__ == "__main__":
    main()
