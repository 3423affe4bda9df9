"""Confined processes that run methods: keeper, zygotes, workers, and the pool that hands workers out."""
