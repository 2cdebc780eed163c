"""What the command line is made of: flags, and files in and out."""
