"""What an experiment folder holds: the plan, the scored pool, the runs and their tables."""
