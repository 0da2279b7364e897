"""What operations do to the axes of their operands: data that several readers share, no compressed weight."""
