"""Sessions whose files lie in a store of objects: local copies, what travels, leases, and what is done behind."""
