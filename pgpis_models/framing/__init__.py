"""A person in a photo of any size framed as a method was trained, what will be a guess, and the result back in the photo."""
