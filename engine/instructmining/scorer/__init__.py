"""The stages composed: examples in, scored rows out; also from and to tables in memory."""
