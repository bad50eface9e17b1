"""Host side: archives, splits, the one view of each frame, and batches."""
