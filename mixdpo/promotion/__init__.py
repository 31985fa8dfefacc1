"""Whether a version may take the place of the one that people are served from.

evidence.py   what is known of a challenger and its champion: pure functions
rules.py      what `promotion` of params.yaml says of it
display.py    both, as people read them

The edge that gathers the evidence and asks for the commit is mixdpo/stages/promote.py.
"""

from __future__ import annotations

from mixdpo.promotion.evidence import Evidence, compare, gather_evidence
from mixdpo.promotion.rules import decide

__all__ = ["Evidence", "compare", "decide", "gather_evidence"]
