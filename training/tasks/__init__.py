"""What is trained: a file per method, whose loss is one function that reads as the paper's training section."""
