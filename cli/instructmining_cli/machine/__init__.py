"""What ``bench`` and ``doctor`` measure on the machine."""
