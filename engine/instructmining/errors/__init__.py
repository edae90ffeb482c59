"""The error tree: one root, a leaf for each case that a caller can act on.

InstructMiningError
├── RowError         one row cannot be scored; it becomes a reject, the run continues
├── InputError       an input cannot be read, or its format is not known
├── OutputError      OUT exists, a name is in use, or the disk refuses to write
│   └── ResumeError      what an earlier run left is damaged, or belongs to another run
├── StoreError       an address of an object store is wrong, or lacks what it needs
├── BundleError      the bundle is damaged, from another version, or lacks a role
│   └── MissingRoleError    it has no model for a column
├── DeviceError      the device does not work here
│   └── DeviceMemoryError   the device has too little memory
├── RuleError        a rule cannot be read or applied
├── SelectionError   the scored rows do not support a selection
├── FittingError     no rule can be estimated from the fine-tuning runs
├── TrainingError    a fine-tuning run fails; the others go on
└── ExportError      a checkpoint cannot be exported
"""

from __future__ import annotations


class InstructMiningError(Exception):
    """Root of all errors raised on purpose; the message says where, what was found, what was wanted, how to fix it."""


class RowError(InstructMiningError):
    """One row cannot be scored; the message is the reason written to the rejects file."""


class InputError(InstructMiningError):
    """An input file is missing, unreadable or in no known format; or a value in its place has the wrong type."""


class OutputError(InstructMiningError):
    """The output cannot be written."""


class ResumeError(OutputError):
    """A run cannot be resumed: its files are damaged, or it had another input, bundle or settings."""


class StoreError(InstructMiningError):
    """An address of an object store is wrong, or the store needs something that is not installed or not set."""


class BundleError(InstructMiningError):
    """A bundle is missing, damaged, of another format version, or lacks a role."""


class MissingRoleError(BundleError):
    """A bundle has no model for a column.

    Attributes:
        lacks: which bundle lacks which role, and for what.
        role: name of the role.
        how: how to get it.
    """

    def __init__(self, lacks: str, role: str, how: str) -> None:
        """Join both texts to the message."""
        super().__init__(f"{lacks}; {how}")
        self.lacks, self.role, self.how = lacks, role, how

    def __reduce__(self) -> tuple[type[MissingRoleError], tuple[str, str, str]]:
        """Pickle what it was made of: the error of a worker reaches the process that started it."""
        return type(self), (self.lacks, self.role, self.how)


class DeviceError(InstructMiningError):
    """The device does not work here; the message names what is missing."""


class DeviceMemoryError(DeviceError):
    """A device has too little memory for a graph or a batch; a smaller batch may fit."""


class RuleError(InstructMiningError):
    """A rule file is unreadable or wrong, or a term has no column."""


class SelectionError(InstructMiningError):
    """The scored file cannot answer the selection asked for."""


class FittingError(InstructMiningError):
    """The table of fine-tuning runs is wrong or too small to estimate a rule from; or statsmodels is missing."""


class TrainingError(InstructMiningError):
    """A fine-tuning run fails: its loss is no number, or it does not fit into memory."""


class ExportError(InstructMiningError):
    """A checkpoint cannot be exported, or its graph does not match it."""
