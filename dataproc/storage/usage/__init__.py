"""What sessions take, watched instead of walked: quotas, and which files a run changed."""
