"""What a judge's folder holds, for those who write one and those who read it."""
