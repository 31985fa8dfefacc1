"""Variables of the environment that concern signatures."""

from __future__ import annotations

TRUSTED = "MIXDPO_TRUSTED_KEYS"  # public keys, with commas or spaces between; where it is set, signatures are required
SIGNER = "MIXDPO_SIGNING_KEY"  # the private key to sign with: a path, or the PEM text itself
