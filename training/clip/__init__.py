"""How the tokenizer files in ``engine/families/clip`` are made."""
