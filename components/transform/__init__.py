"""What happens to an image once, before training: for small networks it is shrunk; pixels are never written decoded."""
