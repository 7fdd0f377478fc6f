"""Videos from models of single images, without training: Text2Video-Zero (arXiv:2303.13439) and what goes with it."""
