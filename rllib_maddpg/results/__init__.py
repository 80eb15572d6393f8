"""What runs leave behind: folders, result files, progress."""
