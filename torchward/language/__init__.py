"""Text: documents, tokenizers and chat, on the nouns that control has too."""
