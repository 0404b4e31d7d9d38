"""What things cost: the price book, made of the operator's file, a file of our own, and a library."""
