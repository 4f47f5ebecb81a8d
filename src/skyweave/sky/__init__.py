"""Maps of the sky: reading and checking them, masks, and patches cut from them."""
