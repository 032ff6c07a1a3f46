"""Text as a condition: tokenizers, and encoders of prompts into sequences and vectors."""
