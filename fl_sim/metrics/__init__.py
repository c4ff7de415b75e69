"""How much of a client's data a reconstruction shows. One number per image; knows no attack and no federation."""
