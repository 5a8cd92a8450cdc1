"""Files that hold results: replaced whole, locked, told apart by what they are made of."""
