"""Everything that draws: tables, curves, decisions, benchmarks; pictures, pages, terminal."""
