"""The error tree: one root, a leaf for each thing a caller can act on.

InstructMiningError
├── RowError         one row cannot be scored; it goes to the rejects, the run goes on
├── InputError       a file or what is given in its place cannot be read, or its format is not one of ours
├── OutputError      OUT exists, a name is taken, the disk does not take it
│   └── ResumeError      what is left of an earlier run is damaged, or of another run
├── BundleError      the bundle is damaged, from another version, or lacks a role
│   └── MissingRoleError    it has no model for a column that is wanted
├── DeviceError      the device asked for does not work here
│   └── DeviceMemoryError   the device has too little memory for what it was given
├── RuleError        a rule cannot be read or applied
├── SelectionError   a choice that the scored rows cannot answer
├── FittingError     fine-tuning runs that no rule can be estimated from
└── ExportError      a checkpoint cannot become a bundle
"""

from __future__ import annotations


class InstructMiningError(Exception):
    """Root of all errors raised on purpose; the message says where, what was found, what was wanted, how to mend."""


class RowError(InstructMiningError):
    """One row cannot be scored; the message is the reason written to the rejects file."""


class InputError(InstructMiningError):
    """An input file is missing, unreadable, or in no format we know; or a value in its place is of a wrong type."""


class OutputError(InstructMiningError):
    """The output cannot be written as asked."""


class ResumeError(OutputError):
    """A run cannot be continued: what is left of it is damaged, or its input, bundle or settings were others."""


class BundleError(InstructMiningError):
    """A bundle is missing, damaged, of another format version, or lacks a role that is needed."""


class MissingRoleError(BundleError):
    """A bundle has no model for a column that is wanted.

    Attributes:
        lacks: which bundle, which role, and for what.
        role: its name.
        how: how to get it.
    """

    def __init__(self, lacks: str, role: str, how: str) -> None:
        """The message is both texts."""
        super().__init__(f"{lacks}; {how}")
        self.lacks, self.role, self.how = lacks, role, how


class DeviceError(InstructMiningError):
    """The device asked for does not run here; the message names what is missing."""


class DeviceMemoryError(DeviceError):
    """A device has too little memory for a graph or a batch; a smaller batch may fit."""


class RuleError(InstructMiningError):
    """A rule file is unreadable or wrong, or a term has no column."""


class SelectionError(InstructMiningError):
    """The scored file cannot answer the selection asked for."""


class FittingError(InstructMiningError):
    """The table of fine-tuning runs is wrong, or too little to estimate a rule from; or statsmodels is missing."""


class ExportError(InstructMiningError):
    """A checkpoint cannot be exported, or its graph is not equal to it."""
