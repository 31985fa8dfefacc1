"""Everything a user can cause, and nothing else.

MixDPOError
├─ ConfigError        params.yaml or the command line is wrong (exit code 2)
├─ DataError          a file, column or row is not what it should be
│  └─ ValidationStop  a validation gate refused the table (exit code 3)
├─ ModelError         a model, tokenizer or hub does not fit or cannot be reached
├─ TrainingError      training cannot go on (non-finite values, stale inputs)
├─ StorageError       the disk is full or not writable
├─ EngineError        workers were lost again and again
├─ TransientError     a hub or store did not answer; the flow tries again (exit code 75)
└─ RegistryError      a version is absent, taken, or does not match its digest
   └─ PromotionRefused  the rules of params.yaml refuse it (exit code 3); nothing was written

Each message says what was expected, what was found, and what to do about it.
"""

from __future__ import annotations


class MixDPOError(Exception):
    """Base of all errors that a user can cause; `exit_code` is what the CLI returns."""

    exit_code = 1


class ConfigError(MixDPOError):
    exit_code = 2


class DataError(MixDPOError):
    pass


class ValidationStop(DataError):  # noqa: N818 (it is a decision to stop; what is wrong is in the rows)
    exit_code = 3


class ModelError(MixDPOError):
    pass


class TrainingError(MixDPOError):
    pass


class StorageError(MixDPOError):
    pass


class EngineError(MixDPOError):
    pass


class TransientError(MixDPOError):
    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class RegistryError(MixDPOError):
    pass


class PromotionRefused(RegistryError):  # noqa: N818 (it is a decision)
    exit_code = 3
