"""WHAT IS WRONG with the user's images, before anything is trained on them."""
