"""How much to compress where: measurements of the choices. Methods carry the choice out."""
