"""Files that hold results: replaced whole, locked, told apart by their content."""
