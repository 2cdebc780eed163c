"""A person in a photo of any size framed as a method was trained, and what was made of it back in that photo."""
