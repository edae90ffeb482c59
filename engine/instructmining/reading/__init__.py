"""Files and tables to examples."""
