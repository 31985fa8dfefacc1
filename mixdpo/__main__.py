"""`python -m mixdpo`, as launchers such as torchrun start it."""

from mixdpo.cli import main

if __name__ == "__main__":
    main(prog_name="mixdpo")
