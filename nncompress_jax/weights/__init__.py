"""What a compressed weight is: one type a file, with its rules."""
