"""Graph passes, one file each, and the two pipelines by promise."""
