"""What `bench` and `doctor` find out about the machine."""
