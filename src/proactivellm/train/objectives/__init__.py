"""What can be learnt: each term of the loss is a module in a file of its own."""
