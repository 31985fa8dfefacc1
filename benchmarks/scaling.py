"""How cost grows with rows, experts and tokens. With processes: scaling_ranks.py.

    python benchmarks/scaling.py rows                  data stages and statistics on generated tables
    python benchmarks/scaling.py rows --cases prepare,evaluate --rows 1000,1000000
    python benchmarks/scaling.py experts --head linear a training step with 1, 2, 4 and 8 experts
    python benchmarks/scaling.py tokens --experts 4    a training step of more and more pairs

Each prints a table for people and, with `--json`, one JSON line a case.
"""

from __future__ import annotations

import click
from scaling_rows import rows
from scaling_step import experts, tokens


@click.group(help=(__doc__ or "").split("\n")[0])
def main() -> None:
    pass


for command in (rows, experts, tokens):
    main.add_command(command)

if __name__ == "__main__":
    main()
