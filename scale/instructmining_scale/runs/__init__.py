"""One scoring run, from files to files: whole or a shard, its record, resuming it, and what is cached between runs."""
