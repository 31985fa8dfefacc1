"""How cost grows with rows. With experts: dpo_step.py; with processes: scaling_ranks.py.

    python benchmarks/scaling.py rows                  data stages and statistics on generated tables
    python benchmarks/scaling.py rows --cases prepare,evaluate --rows 1000,1000000

Each prints a table for people and, with `--json`, one JSON line a case.
"""

from __future__ import annotations

import click
from scaling_rows import rows


@click.group(help=(__doc__ or "").split("\n")[0])
def main() -> None:
    pass


main.add_command(rows)

if __name__ == "__main__":
    main()
