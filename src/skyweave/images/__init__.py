"""Images as such: holes in them."""
