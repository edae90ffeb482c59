"""Token ids to model outputs: devices, sessions, batches, and the threads that run beside each other."""
